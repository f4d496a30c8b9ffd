"""The Celery task is a thin door: it hands a turn's id to the event loop and returns.

Celery acknowledges a hint before the task runs. From the moment of its claim the turn is guarded by our own
lease; a hint that is lost on the way is sent again by upkeep. A full process waits here, on Celery's thread, and
with prefetching off it takes no further hint: those go to other processes.
"""

import threading
from collections.abc import Callable

from celery import Celery, Task
from celery.worker import state as worker_state

from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import TASK_ANSWER

Start = Callable[[TurnId, Lane, Callable[[], None]], None]
"""Starts a turn on the loop from this thread; the last argument must be called when the turn is over."""

Refuse = Callable[[TurnId, Lane], None]
"""Sends the hint back to its lane: this process is stopping."""


class Capacity:
    """How many turns this process carries. Acquired by Celery's thread, released by the loop's."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free = threading.Semaphore(limit)

    def acquire(self, stopping: Callable[[], bool]) -> bool:
        """Wait for a place; False when the process stops first."""
        while not self._free.acquire(timeout=0.25):
            if stopping():
                return False
        return not stopping() or self._give_back()

    def acquire_up_to(self, most: int) -> int:
        """Take places that are free now, without waiting; returns how many."""
        taken = 0
        while taken < most and self._free.acquire(blocking=False):
            taken += 1
        return taken

    def _give_back(self) -> bool:
        self._free.release()
        return False

    def release(self) -> None:
        """Give a place back."""
        self._free.release()


def stopping() -> bool:
    """Whether Celery was told to end this process."""
    return worker_state.should_stop is not None or worker_state.should_terminate is not None


def open_door(app: Celery, *, capacity: Capacity, start: Start, refuse: Refuse) -> None:
    """Register the one task of the application."""

    @app.task(name=TASK_ANSWER, bind=True)
    def answer(task: "Task[[str], None]", turn_id: str) -> None:  # pyright: ignore[reportUnusedFunction] # Celery keeps it
        lane = Lane(str(dict(task.request.delivery_info or {})["routing_key"]))
        turn = TurnId(turn_id)
        if capacity.acquire(stopping):
            start(turn, lane, capacity.release)
        else:
            refuse(turn, lane)
