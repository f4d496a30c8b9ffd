"""How an operator sees a process from outside: lines, spans, numbers.

- `redaction`: what must never leave a process in any of them
- `logs`: one JSON line for each event, whoever logged it
- `tracing`: one trace from the visitor's request to the settled turn
- `metrics`: the catalogue of numbers, and the port that serves them
- `pulse`: when each loop of a process last got through
- `loop_lag`: how late the event loop runs
"""
