"""The Celery door: how a hint on a lane becomes a turn on the process's event loop.

- `loop_thread`: the one event loop of a worker process, beside Celery's own thread
- `door`: the Celery task, and the capacity that makes a full process stop taking
- `poll`: turns that no hint brought, found in the ledger; whether Celery still takes hints
- `process`: a worker process, composed and run
"""
