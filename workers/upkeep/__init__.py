"""What keeps every promise when an owner is gone. More than one may run.

- `sweep`: lost hints, passed deadlines, expired leases, abandoned streams
- `relay`: the outbox, to Kafka
- `forgetter`: what has ended long ago, deleted
- `process`: the process, composed and run
"""
