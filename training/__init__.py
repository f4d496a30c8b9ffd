"""What is fitted from data, one command a module. Needs the extra `train`; no process that serves imports it.

- `router`: the orchestrator's classifier, from the utterances beside it
- `intents`: the same code on public intent sets, and the routers on utterances held out
- `calibrate`: the confidence gate's calibration, from decisions of which it is known whether they were right
"""
