"""From a Kafka event to an agent's lane.

- `decode`: a record as an event, or the reason why it is none
- `intake`: fetch, decode, record, start, bury what is no event, commit
- `router`: which agent answers
- `preparation`: the head of a conversation: claim, route, queue, hint
- `process`: the process, composed and run
"""
