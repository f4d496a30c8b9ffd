"""From a Kafka event to an agent's lane.

- `decode`: a record as an event, or the reason why it is none
- `intake`: fetch, decode, record, start, bury what is no event, commit
- `finding`: what a router finds out, and the port of all routers
- `words`: visitors' words as patterns, those of `patterns`
- `risks`, `signals`, `repeats`: deterministic checks: what needs care, who is about to buy, what is asked again
- `rules`: the router that never fails
- `features`, `state`, `classifier`: the trained router: of words, of what else is known, as plain arrays
- `decision`, `frontier`: the frontier model as router, told by `prompt`
- `routing`: who decides, and who in their place
- `skip`: a router that keeps failing is left out for a while
- `language`: the language of each message
- `confirmation`: the last word on a route, by what was retrieved
- `preparation`: the head of a conversation: claim, look, confirm, queue, hint
- `process`: the process, composed and run
"""
