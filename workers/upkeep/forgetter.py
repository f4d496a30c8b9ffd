"""Forgetting what is old, a little at a time."""

import time
from typing import Final

from structlog import get_logger

from infra.postgres.retention import START, Place, Retention
from infra.telemetry import metrics

log = get_logger(__name__)

SECONDS: Final = 5.0
"""How long one pass may take; the next one goes on where it stopped."""


class Forgetter:
    """Walks over everything that has an age, again and again."""

    def __init__(self, retention: Retention, *, seconds: float = SECONDS) -> None:
        self._retention = retention
        self._seconds = seconds
        self._places: dict[str, Place] = {}

    async def run_once(self) -> int:
        """Forget what is old, as far as the time goes; returns how many rows, conversations counted as one.

        Raises:
            LedgerUnavailable: nothing is half forgotten; go on later.
        """
        give_up = time.monotonic() + self._seconds
        total = 0
        for kind in self._retention.walks:
            total += await self._walk(kind, give_up)
        return total

    async def _walk(self, kind: str, give_up: float) -> int:
        """Take batches of one kind, one at least, until its end or the end of the time."""
        place: Place | None = self._places.pop(kind, START)
        gone = 0
        while place is not None:
            step = await self._retention.walks[kind](place)
            gone, place = gone + step.gone, step.on
            metrics.FORGOTTEN.labels(kind).inc(step.gone)
            if place is not None and time.monotonic() > give_up:
                self._places[kind] = place
                break
        if gone:
            log.info("forgotten", kind=kind, count=gone)
        return gone
