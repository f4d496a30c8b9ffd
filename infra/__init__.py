"""Adapters, one folder per technology, and how processes are set up.

- `settings`: where things are and what they may know
- `policy`: reading the policy file
- `kafka`: events in and out
- `postgres`: the ledger: every transition of a turn
- `embeddings`: texts as words and as vectors
- `celery`: hints on the lanes
- `redis`: live frames, their log, and wake-ups
- `redaction`: personal data and secrets in a text, replaced by placeholders
- `telemetry`: logs, traces, metrics
- `processes`: how every asyncio process starts and stops
- `crash_points`: named places at which the fault suite lets a process die
- `samples`: a small knowledge base to try everything with
- `embedded`: real servers from wheels, supervised, for one machine
"""
