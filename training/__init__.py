"""What is fitted from data, one command a module. Needs the extra `train`; no process that serves imports it.

- `router`: the orchestrator's classifier, from the utterances beside it
- `intents`: the same code on public intent sets, and all routers
- `agents`: what routers are worth on utterances held out and on public ones, alone and confirmed
- `rows`: rows of public intent sets
- `calibrate`: the confidence gate's calibration, from decisions of which it is known whether they were right
"""
