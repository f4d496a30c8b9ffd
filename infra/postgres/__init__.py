"""The ledger.

- `engine`: the connection pool
- `migrate`: the schema, brought up to date
- `statements`: one statement, one round trip; what PostgreSQL's absence looks like
- `tenants`: tenants, API keys and site keys
- `idempotency`: which message a key stands for
- `inbox`: recording, preparing and queueing a turn
- `claims`: taking a turn, its latches, its lease
- `settlement`: ending a turn
- `sweeps`: what nobody is working on any more
- `views`: reading turns for watchers and operators
- `outbox`: what must reach Kafka after a transaction
- `dead_letters`: the index of records that never became turns
- `letter_queries`: which dead letters a filter means, as SQL
- `letters`: listing, showing, counting, discarding dead letters
- `replays`: replay jobs, for whoever asks for them
- `replay_runs`: replay jobs, for the process that works through them
- `audit`: who did what
"""
