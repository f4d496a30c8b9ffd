"""Everything that puts a turn on Kafka, in the order a turn meets it.

- `gateway`: HTTP, server-sent events, WebSocket and the OpenAI-compatible API
- `rate_limit`: how many turns somebody may submit
- `admission`: validate, deduplicate, publish: shared by every channel
"""
