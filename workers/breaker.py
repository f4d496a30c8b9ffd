"""Skipping a primary that keeps failing: what this process measures, and what all processes share.

Calls are counted here, by each process for itself. A conclusion is written to a table that every process reads about
once a second, beside its turns: a turn pays no round trip for it, but for the one that is a probe. While PostgreSQL
is away what was known last holds.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from structlog import get_logger

from infra.postgres.breakers import Breaker, BreakerTable, Measured, ProbeOutcome
from infra.postgres.statements import LedgerUnavailable
from infra.telemetry import metrics
from schemas.agents import ANSWERING, Lane, lane_of
from schemas.completions import LowConfidence
from schemas.ids import TurnId
from schemas.outcomes import Answered, AttemptEnding, FailedUnseen, LeaseLost
from schemas.policy import BreakerPolicy

log = get_logger(__name__)

READ_SECONDS: Final = 1.0
"""Rest between two looks at what all processes share."""

OPEN: Final = "breaker_open"
"""Why the primary was skipped, as a turn's history says it."""

_STATES: Final = {"closed": 0, "probing": 1, "open": 2}


@dataclass(slots=True)
class _Window:
    """The calls of the last seconds, and how many of them failed."""

    seconds: float
    calls: deque[tuple[float, bool]] = field(default_factory=deque[tuple[float, bool]])
    failed: int = 0

    def add(self, now: float, *, failed: bool) -> None:
        self.calls.append((now, failed))
        self.failed += failed
        while self.calls[0][0] < now - self.seconds:
            self.failed -= self.calls.popleft()[1]

    def clear(self) -> None:
        self.calls.clear()
        self.failed = 0


@dataclass(slots=True)
class _Known:
    """One lane. Instants are on this process's monotonic clock; 0 is long ago."""

    window: _Window
    open: bool = False
    forced: Measured | None = None
    since: datetime | None = None
    retry_at: float = 0.0
    probe_until: float = 0.0
    away_until: float = 0.0

    def state(self, now: float) -> Literal["closed", "probing", "open"]:
        """What turns that are claimed now meet."""
        if self.forced is not None:
            return self.forced
        return "closed" if not self.open else "probing" if self.probe_until > now else "open"


@dataclass(frozen=True, slots=True)
class _Probe:
    """The turn of this process that may ask the primary of an open lane."""

    turn_id: TurnId
    permission: datetime


class Breakers:
    """The breakers of one worker process, one a lane."""

    def __init__(self, table: BreakerTable, *, policy: BreakerPolicy) -> None:
        self._table = table
        self._policy = policy
        self._lanes = {lane_of(agent): _Known(_Window(policy.window)) for agent in ANSWERING}
        self._probes: dict[Lane, _Probe] = {}
        self._unwritten: deque[tuple[Lane, Callable[[], Awaitable[None]]]] = deque()
        self._wake = asyncio.Event()
        self._tell()

    async def skip(self, turn_id: TurnId, lane: Lane) -> str | None:
        """Return why a turn that is about to be claimed shall not ask its primary; None if it shall.

        On an open lane whose time has come one turn becomes the probe: it gets None.
        """
        known, now = self._lanes[lane], time.monotonic()
        if known.state(now) == "closed":
            return None
        due = known.forced is None and now >= max(known.retry_at, known.probe_until)
        return None if due and await self._may_probe(turn_id, lane) else OPEN

    def away(self, lane: Lane) -> bool:
        """Whether a drill keeps the primary away."""
        return self._lanes[lane].away_until > time.monotonic()

    def record(self, turn_id: TurnId, lane: Lane, ending: AttemptEnding) -> None:
        """Count how a primary call ended. One whose turn was lost says nothing about the model."""
        if isinstance(ending, LeaseLost):
            self.not_asked(turn_id, lane)
            return
        failed = not (isinstance(ending, Answered) or _unsure(ending))
        known = self._lanes[lane]
        known.window.add(time.monotonic(), failed=failed)
        if not self._reported(turn_id, lane, "failed" if failed else "answered"):
            self._judge(lane, known)

    def not_asked(self, turn_id: TurnId, lane: Lane) -> None:
        """Say that a turn did not ask its primary after all: if it was to be a probe, another may be."""
        self._reported(turn_id, lane, "unused")

    async def run(self) -> None:
        """Share for ever."""
        while True:
            try:
                await self.share()
            except LedgerUnavailable as error:
                log.warning("breakers_not_shared", error=str(error))
            except Exception:
                # Without this loop the process would neither open nor close a lane any more.
                log.exception("breakers_not_shared")
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_SECONDS):
                    await self._wake.wait()

    async def share(self) -> None:
        """Write what was concluded here, then take over what all processes know.

        Raises:
            LedgerUnavailable: what was concluded is kept for the next time.
        """
        self._wake.clear()
        while self._unwritten:
            lane, write = self._unwritten.popleft()
            try:
                await write()
            except LedgerUnavailable:
                self._unwritten.appendleft((lane, write))
                raise
        shared = {breaker.lane: breaker for breaker in await self._table.read()}
        waiting = {lane for lane, _ in self._unwritten}  # concluded while the table was read: it is older
        for lane in self._lanes.keys() - waiting:
            self._take_over(lane, shared.get(lane))
        self._tell()

    async def _may_probe(self, turn_id: TurnId, lane: Lane) -> bool:
        known = self._lanes[lane]
        known.probe_until = (
            time.monotonic() + READ_SECONDS
        )  # whoever has it, no other turn need ask until the next look
        try:
            permission = await self._table.probe(lane)
        except LedgerUnavailable:
            return False
        if permission is None:
            return False
        known.probe_until = time.monotonic() + self._policy.probe
        self._probes[lane] = _Probe(turn_id, permission)
        log.info("breaker_probed", lane=lane, turn_id=turn_id)
        return True

    def _reported(self, turn_id: TurnId, lane: Lane, outcome: ProbeOutcome) -> bool:
        """End this turn's probe, here at once and in the table soon; False when it is none."""
        probe = self._probes.get(lane)
        if probe is None or probe.turn_id != turn_id:
            return False
        del self._probes[lane]
        metrics.BREAKER_PROBES.labels(lane, outcome).inc()
        known = self._lanes[lane]
        known.probe_until = 0.0
        if outcome == "answered":
            known.open = False
            known.window.clear()
        elif outcome == "failed":
            known.retry_at = time.monotonic() + self._policy.open

        async def write() -> None:
            if await self._table.report(lane, probe.permission, outcome) and outcome == "answered":
                log.info("breaker_closed", lane=lane)

        self._write_soon(lane, write)
        return True

    def _judge(self, lane: Lane, known: _Known) -> None:
        """Open the lane if enough of enough calls have failed."""
        calls, failed = len(known.window.calls), known.window.failed
        if known.open or known.forced or calls < self._policy.calls or failed < self._policy.share * calls:
            return
        known.open = True
        known.retry_at = time.monotonic() + self._policy.open
        known.probe_until = 0.0

        async def write() -> None:
            if await self._table.open(lane, f"{failed} of {calls} calls failed"):
                metrics.BREAKER_OPENINGS.labels(lane).inc()
                log.warning("breaker_opened", lane=lane, failed=failed, calls=calls, seconds=self._policy.open)

        self._write_soon(lane, write)

    def _write_soon(self, lane: Lane, write: Callable[[], Awaitable[None]]) -> None:
        self._unwritten.append((lane, write))
        self._tell()
        self._wake.set()

    def _take_over(self, lane: Lane, shared: Breaker | None) -> None:
        known, now = self._lanes[lane], time.monotonic()
        if known.since != (shared.since if shared else None):
            # What was counted belongs to the state before.
            known.window.clear()
        known.open = shared is not None and shared.state == "open"
        known.forced = shared.forced if shared else None
        known.since = shared.since if shared else None
        known.retry_at = now + ((shared.retry_in if shared else None) or 0.0)
        known.probe_until = now + ((shared.probe_in if shared else None) or 0.0)
        known.away_until = now + ((shared.away_in if shared else None) or 0.0)

    def _tell(self) -> None:
        now = time.monotonic()
        for lane, known in self._lanes.items():
            metrics.BREAKER_STATE.labels(lane).set(_STATES[known.state(now)])


def _unsure(ending: AttemptEnding) -> bool:
    """Whether the model answered and was passed over for being unsure: its server is well."""
    return isinstance(ending, FailedUnseen) and isinstance(ending.error, LowConfidence)
