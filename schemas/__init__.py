"""The vocabulary every process shares; pydantic and the standard library only.

In the order a turn meets them:

- `ids`: typed identifiers and how a turn's id is derived
- `names`: every topic, lane, key and channel, spelled once
- `agents`: the seven agents and the lanes they work on
- `turns`: what a visitor may send, the states of a turn and the allowed transitions
- `keepers`: who answers a conversation: agents, or a person
- `events`: what Kafka carries
- `envelope`: the CloudEvents headers around it
- `gate_policy`: how much of an answer is held back until it is judged
- `policy`: behaviour as data: agents, models, deadlines
- `asset_policy`: its section on what agents may make beside their words
- `guardrail_policy`: links, redaction, promises, abuse: what no model decides
- `routing_policy`: its section on who decides which agent answers
- `answer_policy`: its section on what answers must keep to
- `knowledge`: what a knowledge base holds and what was found in it
- `knowledge_policy`: how a message is looked up in it, as policy
- `briefs`: what is known about a turn before its agent answers
- `citations`: what a model read of a knowledge base, and what its answer cites
- `materials`: what an answer without a model is made of
- `completions`: what is asked of a model and what streams back; the one family of provider errors
- `frames`: what a watcher sees, numbered
- `outcomes`: how a turn can end
- `assets`: files that agents make for their answers
- `dead_letters`: why a turn left its lane
- `replays`: answering dead letters anew
- `letter_filter`: which dead letters an operator means
- `problems`: errors as a person at the edge reads them
"""
