"""Everything that happens to a turn, in order.

- `orchestrator`: from a Kafka event to an agent's lane
- `researcher`: what the knowledge base says to a message
- `lanes`: the Celery door: a hint becomes work on the process's event loop
- `executor`: the middle: one turn from claim to settlement
- `breaker`: primaries that keep failing are skipped, and probed again
- `live_turns`: the leases of the turns a process carries
- `agents`: what each agent is told, and the shape of its answer
- `knowledge`: how documents come into a knowledge base
- `providers`: the model servers' clients
- `guardrails`: what is decided about words without any model
- `answers`: from a model's stream to what the visitor sees, and to its end
- `assets`: what an answer links to: diagrams, images
- `dead_letters`: a turn that left its lane: to the frontier, or into an operator's hands
- `each`: a step for each of many turns, several beside each other
- `upkeep`: what keeps every promise when an owner is gone
"""
