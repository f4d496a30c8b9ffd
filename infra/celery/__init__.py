"""Celery carries hints only: which turn waits in which lane.

- `app`: the Celery application and its settings, each with its reason
- `envelope`: the bytes of one hint, as a stock Celery worker reads them
- `dispatch`: sending many hints in one round trip, without blocking the event loop
"""
