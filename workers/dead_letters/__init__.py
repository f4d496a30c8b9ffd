"""What becomes of a turn that left its lane: from the dead-letter topic to the frontier, or into an operator's hands.

- `route`: reads the topic; a turn whose fallback is unused goes to the frontier, another one is parked
- `replays`: dead letters that an operator lets be answered anew
- `process`: the process, composed and run
"""
