"""What is trained before it serves. Needs the extra `train`; nothing that serves imports it.

- `router`: the orchestrator's classifier, from the utterances beside it
- `intents`: the same code on public intent sets, and the routers on utterances held out
"""
