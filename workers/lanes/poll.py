"""A worker's own look into the ledger: turns of its lanes that no hint brought.

Hints are quick and may be lost: with Redis away all of them are, and a consumer that stopped consuming takes none.
What is found here is claimed like any other turn, so that a late hint for it is nothing.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog import get_logger

from infra.postgres.statements import LedgerUnavailable
from infra.postgres.waiting import Overdue, Waiting
from infra.telemetry import metrics
from infra.telemetry.pulse import Pulse
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import CELERY_PREFIX
from workers.lanes.door import Capacity

log = get_logger(__name__)

LOOP: Final = "poll"
REST_SECONDS: Final = 1.0
PASS_SECONDS: Final = 30.0
"""A pass waits for PostgreSQL at most; longer than this means that the loop hangs."""

REDIS_SECONDS: Final = 0.5
"""Redis that takes longer to say how long the lanes are counts as away."""

BATCH: Final = 100
USUAL: Final = Overdue(late=4.0, late_again=1.0)
"""Upkeep sends a hint again after 2 s: what then still waits is not waiting for its turn in the lane."""

WITHOUT_HINTS: Final = Overdue(late=0.3, late_again=0.3)
"""While Redis is away, and after that until Celery is heard again: it pauses up to half a minute between attempts."""

CATATONIC_SECONDS: Final = 30.0


class Poll:
    """Looks for turns while the process has places for them, and watches whether Celery still takes hints."""

    def __init__(
        self,
        *,
        waiting: Waiting,
        redis: Redis,
        lanes: Sequence[Lane],
        capacity: Capacity,
        start: Callable[[TurnId, Lane, Callable[[], None]], None],
        stopping: Callable[[], bool],
        pulse: Pulse,
    ) -> None:
        self._waiting = waiting
        self._redis = redis
        self._lanes = lanes
        self._capacity = capacity
        self._start = start
        self._stopping = stopping
        self._pulse = pulse
        self._ignored_since: float | None = None
        self._deaf = False
        pulse.watch(LOOP, within=PASS_SECONDS)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            full = False
            try:
                full = await self.run_once() == BATCH
            except LedgerUnavailable as error:
                log.warning("poll_waits", error=str(error))
            except Exception:
                log.exception("poll_failed")
            self._pulse.passed(LOOP)
            if not full:
                await asyncio.sleep(REST_SECONDS)

    async def run_once(self) -> int:
        """Look once and start what is found; returns how many turns that were.

        Raises:
            LedgerUnavailable: PostgreSQL does not answer.
        """
        hints = await self._hints()
        places = 0 if self._stopping() else self._capacity.acquire_up_to(BATCH)
        self._deaf = self._deaf or hints is None
        self._watch_consumer(hints if places else None)
        found: list[tuple[TurnId, Lane]] = []
        try:
            if places:
                found = await self._waiting.take_overdue(WITHOUT_HINTS if self._deaf else USUAL, limit=places)
        finally:
            for _ in range(places - len(found)):
                self._capacity.release()
        for turn_id, lane in found:
            metrics.TURNS_FOUND.labels(lane.value).inc()
            self._start(turn_id, lane, self._capacity.release)
        if found:
            log.info("turns_found", turns=len(found), redis="away" if hints is None else "there")
        return len(found)

    async def _hints(self) -> int | None:
        """Return how many hints lie in the lanes; None if Redis does not answer."""
        try:
            async with asyncio.timeout(REDIS_SECONDS), self._redis.pipeline(transaction=False) as pipe:
                for lane in self._lanes:
                    pipe.llen(CELERY_PREFIX + lane.value)
                return sum(await pipe.execute())
        except (RedisError, OSError, TimeoutError):
            return None

    def hint_taken(self) -> None:
        """Note that Celery consumes. Called from its thread."""
        self._ignored_since, self._deaf = None, False

    def _watch_consumer(self, hints: int | None) -> None:
        """Note since when hints lie there and are not taken; None: nothing can be said, no place or no Redis."""
        if not hints:
            self._ignored_since = None
        elif self._ignored_since is None:
            self._ignored_since = time.monotonic()

    def health(self) -> dict[str, str | None]:
        """Say whether Celery ignores hints though it could take them. Only a new process mends that."""
        since = self._ignored_since
        late = 0.0 if since is None else time.monotonic() - since
        return {"hints": f"none taken for {late:.0f} s though some wait" if late > CATATONIC_SECONDS else None}
