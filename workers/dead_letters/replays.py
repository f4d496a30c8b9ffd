"""Works through replay jobs: starts replays at each job's rate, books how they ended, stops what goes wrong.

A replay is an ordinary turn, so that its answer has every promise of one. Several processes share the jobs; one that
is killed leaves nothing by halves, and its jobs are taken over when their leases end.
"""

import time
from typing import Final

from redis.asyncio import Redis
from structlog import get_logger

from infra.crash_points import reach
from infra.postgres.inbox import PastTurn
from infra.postgres.replay_runs import HeldJob, Looked, ReplayRuns, Started
from infra.redis.wake import announce_all
from infra.telemetry.metrics import REPLAYS
from workers.answers.sanitise import to_text

log = get_logger(__name__)

BATCH: Final = 250
IN_FLIGHT: Final = 2_000
"""Replays of one job under way at a time: more would pass their deadlines waiting for each other."""

JOBS: Final = 8
"""Jobs one process works on at a time."""

REVIEW_SECONDS: Final = 0.2
BURST_SECONDS: Final = 0.5
"""So much of a job's rate may be made up for after a pause of ours."""


class Replays:
    """One process's work on replay jobs."""

    def __init__(self, *, runs: ReplayRuns, redis: Redis, batch: int = BATCH, in_flight: int = IN_FLIGHT) -> None:
        self._runs = runs
        self._redis = redis
        self._batch = batch
        self._in_flight = in_flight
        self._buckets: dict[str, _Bucket] = {}
        self._reviewed: dict[str, float] = {}

    async def run_once(self) -> int:
        """Book what ended, start what is due; returns how many items moved. 0: rest a moment.

        Raises:
            LedgerUnavailable: nothing is lost; call again.
        """
        moved = booked = await self._book()
        jobs = await self._runs.lease(JOBS)
        self._forget({job.job_id for job in jobs})
        for job in jobs:
            if not await self._ended(job, at_once=booked > 0):
                moved += await self._work(job)
        return moved

    async def _book(self) -> int:
        moved = 0
        while True:
            booked = await self._runs.book(self._batch)
            for ending in booked:
                REPLAYS.labels(ending.mode, "answered" if ending.well else "failed").inc(ending.n)
            n = sum(ending.n for ending in booked)
            moved += n
            if n < self._batch:
                return moved

    async def _work(self, job: HeldJob) -> int:
        bucket = self._buckets.setdefault(job.job_id, _Bucket(job.rate))
        room = min(self._batch, self._in_flight - job.under_way, bucket.whole())
        started = await self._start(job, room) if room > 0 else Started((), 0, 0)
        bucket.take(len(started.turns) + started.sent_back)
        if started.turns:
            reach("replay_after_insert")
            await announce_all(self._redis, started.turns)
        REPLAYS.labels(job.mode, "started").inc(len(started.turns) + started.sent_back)
        REPLAYS.labels(job.mode, "skipped").inc(started.skipped)
        return started.items

    async def _start(self, job: HeldJob, room: int) -> Started:
        if job.records:
            return await self._runs.send_back(job, room)
        if job.mode == "deliver":
            return await self._runs.deliver(job, room)
        looked = await self._runs.look(job, room)
        return (
            await self._runs.shadow(job, looked, [_history(item) for item in looked]) if looked else Started((), 0, 0)
        )

    async def _ended(self, job: HeldJob, *, at_once: bool) -> bool:
        """Tell whether the job is done, or has to stop before anything more of it starts."""
        now = time.monotonic()
        if not at_once and now - self._reviewed.get(job.job_id, 0.0) < REVIEW_SECONDS:
            return False
        self._reviewed[job.job_id] = now
        state = await self._runs.review(job)
        if state is not None:
            log.info("replay_job_ended", job_id=job.job_id, state=state)
        return state is not None

    def _forget(self, held: set[str]) -> None:
        # A job that was paused begins its rate anew.
        for kept in (self._buckets, self._reviewed):
            for job_id in kept.keys() - held:
                del kept[job_id]


class _Bucket:
    """Tokens for one job, filled on this process's clock."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = 1.0
        self._at = time.monotonic()

    def whole(self) -> int:
        """Return how many may start now."""
        now = time.monotonic()
        self._tokens = min(self._tokens + (now - self._at) * self._rate, max(1.0, self._rate * BURST_SECONDS))
        self._at = now
        return int(self._tokens)

    def take(self, n: int) -> None:
        """Count what started."""
        self._tokens -= n


def _history(item: Looked) -> list[tuple[str, str]]:
    """Return what was said before the turn as a channel would bring it along: a conversation of its own has no past."""
    said = [message for turn in item.past for message in _said(turn)]
    return said or list(item.brought)


def _said(turn: PastTurn) -> list[tuple[str, str]]:
    shown = to_text(turn.shown_html)
    return [("user", turn.asked), ("assistant", shown)] if shown else [("user", turn.asked)]
