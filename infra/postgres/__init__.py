"""The ledger.

- `engine`: the connection pool
- `migrate`: the schema, brought up to date
- `tenants`: tenants, API keys and site keys
- `idempotency`: which message a key stands for
- `turns`: every transition of a turn, each one compare-and-set
- `views`: reading turns for watchers and operators
- `outbox`: what must reach Kafka after a transaction
- `dead_letters`: the index of turns that left their lane
"""
