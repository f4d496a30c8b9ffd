"""The ledger.

- `engine`: the connection pool
- `migrate`: the schema, brought up to date
- `statements`: one statement, one round trip; what PostgreSQL's absence looks like
- `tenants`: tenants, API keys and site keys
- `idempotency`: which message a key stands for
- `headers`: Kafka headers as PostgreSQL keeps them
- `facts`: what is known of a buyer, part of the statements that prepare and queue a turn
- `inbox`: recording, preparing and queueing a turn
- `coalescing`: waiting messages taken together, part of the statements that prepare and end a turn
- `waiting`: turns in a lane that no hint brought
- `claims`: taking a turn, its latches, its lease
- `letters`: the dead letter of a turn, part of the statements that take it out of its lane
- `settlement`: ending a turn
- `sweeps`: what nobody is working on any more
- `rescue_budget`: how many turns may be rescued, shared by every upkeep
- `views`: reading turns for watchers and operators
- `outbox`: what must reach Kafka after a transaction
- `breakers`: lanes whose primary is skipped, shared by all workers
- `audit`: what operators did
- `dead_letters`: the index of records that never became turns, and where copies are
- `retention`: forgetting what is old
- `letter_queries`: which dead letters a filter means, as SQL
- `letter_views`: listing, showing, counting, discarding dead letters
- `replays`: replay jobs, for whoever asks for them
- `replay_runs`: replay jobs, for the process that works through them
- `replay_items`: what became of each letter of a job
"""
