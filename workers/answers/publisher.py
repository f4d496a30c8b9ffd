"""One publisher per process: what hundreds of turns show leaves in one script per flush."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Final

from structlog import get_logger

from infra.postgres.statements import LedgerUnavailable
from infra.redis.frame_log import Append, FrameLog, FramesUnavailable, Verdict
from infra.telemetry import metrics
from workers.answers.writer import FrameWriter

log = get_logger(__name__)

FLUSH_SECONDS: Final = 0.04
"""How long later pieces of an answer may wait for company. The first piece never waits."""

RETRY_SECONDS: Final = 0.5
"""Between flushes while Redis does not answer."""

MAX_TURNS_PER_SCRIPT: Final = 100
"""Redis runs a script alone: this keeps one under a few milliseconds."""


class Publisher:
    """Flushes writers: urgent ones at once, the others together every `FLUSH_SECONDS`.

    Args:
        frames: the frame log.
        still_owner: asks the ledger whether a writer's turn is still ours; used when Redis forgot the fence.
    """

    def __init__(self, frames: FrameLog, still_owner: Callable[[FrameWriter], Coroutine[None, None, bool]]) -> None:
        self._frames = frames
        self._still_owner = still_owner
        self._urgent: dict[FrameWriter, None] = {}
        self._waiting: dict[FrameWriter, None] = {}
        self._confirmed: dict[FrameWriter, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None
        self._ticked = False
        self._next_tick = 0.0

    def submit(self, writer: FrameWriter, *, urgent: bool) -> None:
        """Note that a writer has something to flush."""
        if writer.silent:
            return
        if urgent:
            self._urgent[writer] = None
            self._wake.set()
        else:
            self._waiting[writer] = None
            self._set_tick()

    def _set_tick(self, *, after: float = 0.0) -> None:
        # One timer for all that wait: most pieces cost no wake-up at all.
        if self._tick is None:
            loop = asyncio.get_running_loop()
            self._tick = loop.call_at(max(loop.time() + after, self._next_tick), self._on_tick)

    def _on_tick(self) -> None:
        self._tick, self._ticked = None, True
        self._wake.set()

    async def drain(self, writer: FrameWriter) -> None:
        """Return once the log has all of this writer's frames, or cannot have them.

        Called before a turn is settled, so that the ledger's cuts are those the watchers saw.
        """
        if writer.silent or writer.lost.is_set() or not writer.waiting:
            return
        done = self._confirmed.setdefault(writer, asyncio.get_running_loop().create_future())
        self.submit(writer, urgent=True)
        await done

    async def run(self) -> None:
        """Flush for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._urgent = self._urgent, {}
            if self._ticked:
                due |= self._waiting
                self._waiting, self._ticked = {}, False
                self._next_tick = asyncio.get_running_loop().time() + FLUSH_SECONDS
            try:
                await self.flush(list(due))
            except Exception:
                log.exception("flush_failed", turns=len(due))
                for writer in due:
                    self._give_up(writer)

    async def flush(self, writers: list[FrameWriter]) -> None:
        """Send what these writers hold, in as few scripts as may be."""
        todo = iter(writer for writer in writers if writer.waiting and not writer.lost.is_set())
        while some := list(islice(todo, MAX_TURNS_PER_SCRIPT)):
            await self._send(some)
        for writer in writers:
            self._release(writer)

    async def _send(self, writers: list[FrameWriter]) -> None:
        taken = [writer.take() for writer in writers]
        try:
            verdicts = await self._frames.append(taken)
        except FramesUnavailable:
            log.warning("frames_not_published", turns=len(writers))
            for writer in writers:
                self._give_up(writer)
            return
        metrics.FLUSHES_PUBLISHED.inc()
        metrics.FRAMES_PUBLISHED.inc(sum(len(append.lines) for append in taken))
        for writer, append, verdict in zip(writers, taken, verdicts, strict=True):
            await self._judge(writer, append, verdict)

    async def _judge(self, writer: FrameWriter, append: Append, verdict: Verdict) -> None:
        match verdict:
            case Verdict.OK:
                writer.confirm(append)
            case Verdict.FENCED:
                metrics.STALE_FENCE_REFUSALS.inc()
                writer.lost.set()
            case Verdict.NOFENCE:
                await self._mend(writer)

    async def _mend(self, writer: FrameWriter) -> None:
        """Redis forgot this turn: write its log anew, if the ledger says it is still ours."""
        try:
            if not await self._still_owner(writer):
                writer.lost.set()
            elif await self._frames.rewrite(writer.stream, writer.logged()) is Verdict.OK:
                writer.confirm_all()
                self.submit(writer, urgent=False)
            else:
                writer.lost.set()
        except (FramesUnavailable, LedgerUnavailable):
            self._give_up(writer)

    def _give_up(self, writer: FrameWriter) -> None:
        """Redis is away: keep the frames for the next flush, but let nobody wait for it."""
        future = self._confirmed.pop(writer, None)
        if future is not None and not future.done():
            future.set_result(None)
        else:
            self._waiting[writer] = None
            self._set_tick(after=RETRY_SECONDS)

    def _release(self, writer: FrameWriter) -> None:
        if writer in self._confirmed and (writer.lost.is_set() or not writer.waiting):
            future = self._confirmed.pop(writer)
            if not future.done():
                future.set_result(None)
