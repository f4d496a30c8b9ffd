"""One publisher per process: what hundreds of turns show leaves in one script per flush."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Final

from structlog import get_logger

from infra.redis.frame_log import Append, FrameLog, FramesUnavailable, Verdict
from infra.telemetry import metrics
from workers.answers.writer import FrameWriter

log = get_logger(__name__)

FLUSH_SECONDS: Final = 0.04
"""How long later pieces of an answer may wait for company. The first piece never waits."""

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
        self._wake = asyncio.Event()
        self._confirmed: dict[FrameWriter, asyncio.Future[None]] = {}

    def submit(self, writer: FrameWriter, *, urgent: bool) -> None:
        """Note that a writer has something to flush."""
        if writer.silent:
            return
        (self._urgent if urgent else self._waiting)[writer] = None
        if urgent or not self._wake.is_set():
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
        loop = asyncio.get_running_loop()
        next_flush = 0.0
        while True:
            await self._wake.wait()
            if not self._urgent and (pause := next_flush - loop.time()) > 0:
                await self._nap(pause)
            self._wake.clear()
            due = dict.fromkeys(self._urgent)
            self._urgent.clear()
            if loop.time() >= next_flush:
                due |= self._waiting
                self._waiting.clear()
                next_flush = loop.time() + FLUSH_SECONDS
            elif self._waiting:
                self._wake.set()
            await self.flush(list(due))

    async def _nap(self, seconds: float) -> None:
        # An urgent writer sets the event again; clearing it first lets that end the nap.
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            self._wake.set()

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
                self._waiting[writer] = None
                self._wake.set()
            else:
                writer.lost.set()
        except FramesUnavailable:
            self._give_up(writer)

    def _give_up(self, writer: FrameWriter) -> None:
        """Redis is away: keep the frames for the next flush, but let nobody wait for it."""
        future = self._confirmed.pop(writer, None)
        if future is not None and not future.done():
            future.set_result(None)
        else:
            self._waiting[writer] = None
            asyncio.get_running_loop().call_later(0.5, self._wake.set)

    def _release(self, writer: FrameWriter) -> None:
        if writer in self._confirmed and (writer.lost.is_set() or not writer.waiting):
            future = self._confirmed.pop(writer)
            if not future.done():
                future.set_result(None)
