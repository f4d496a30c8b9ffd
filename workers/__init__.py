"""Everything that happens to a turn, in order.

- `orchestrator`: from a Kafka event to an agent's lane
- `lanes`: the Celery door: a hint becomes work on the process's event loop
- `executor`: the middle: one turn from claim to settlement
- `live_turns`: the leases of the turns a process carries
- `agents`: what each agent is told, and the shape of its answer
- `providers`: the model servers' clients
- `answers`: from a model's stream to what the visitor sees, and to its end
- `dead_letters`: what left its lane, and what an operator lets be answered anew
- `upkeep`: what keeps every promise when an owner is gone
"""
