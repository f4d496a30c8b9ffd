"""One turn's visible content, numbered, on its way to the frame log."""

import asyncio
import time

from infra.redis.frame_log import Append, Stream
from schemas.frames import SEQ_ROUTED, Phase, TurnStreamInfo, WireFrame, frames_of, render

FIRST_CONTENT = SEQ_ROUTED + 1


class FrameWriter:
    """Collects what a turn shows. The publisher takes it away a frame at a time.

    Args:
        stream: where the frames go, and under which epoch.
        info: what every frame of the turn repeats.
        silent: Redis could not be armed: nothing is shown before the end.
    """

    def __init__(self, *, stream: Stream, info: TurnStreamInfo, silent: bool = False) -> None:
        self.stream = stream
        self.info = info
        self.silent = silent
        self.opened = time.monotonic()
        self.lost = asyncio.Event()
        """Set when the fence says that someone else owns the turn."""
        self._pieces: list[str] = []
        self._pending: list[str] = []
        self._unconfirmed: list[str] = []
        self._first_unconfirmed = FIRST_CONTENT
        self._finished = False
        self._finish_confirmed = True

    @property
    def content(self) -> str:
        """Return all visible content so far."""
        return "".join(self._pieces) + "".join(self._pending)

    @property
    def cuts(self) -> tuple[int, ...]:
        """Return the length of each content frame so far; what waits for the next flush counts as one."""
        pending = sum(map(len, self._pending))
        return (*map(len, self._pieces), pending) if pending else tuple(map(len, self._pieces))

    @property
    def started(self) -> bool:
        """Whether anything became visible."""
        return bool(self._pieces or self._pending)

    def write(self, html: str) -> None:
        """Add visible content."""
        self._pending.append(html)

    def finish(self) -> None:
        """Note that the model ended of its own accord; a sealer may then take the content for whole."""
        self._finished, self._finish_confirmed = True, False

    def forget(self) -> None:
        """Drop everything: only for a silent turn, of which nothing was shown."""
        self._pieces.clear()
        self._pending.clear()

    @property
    def waiting(self) -> bool:
        """Whether there is something the log has not confirmed."""
        return bool(self._pending or self._unconfirmed) or not self._finish_confirmed

    def take(self) -> Append:
        """Make one frame of what is pending and return everything the log has not confirmed."""
        if self._pending:
            seq = FIRST_CONTENT + len(self._pieces)
            piece = "".join(self._pending)
            self._pending.clear()
            self._pieces.append(piece)
            self._unconfirmed.append(render(self.info, seq, Phase.STREAMING, piece).encode())
        return Append(self.stream, self._first_unconfirmed, tuple(self._unconfirmed), self._finished)

    def confirm(self, taken: Append) -> None:
        """Note that the log has everything of `taken`."""
        self._first_unconfirmed += len(taken.lines)
        del self._unconfirmed[: len(taken.lines)]
        self._finish_confirmed = self._finish_confirmed or taken.finished

    def logged(self) -> list[WireFrame]:
        """Return the frames that belong into the log by now: `routed` and the content taken so far."""
        cuts = tuple(map(len, self._pieces))
        told = frames_of(self.info, routed=True, content="".join(self._pieces), cuts=cuts, ended=None)
        return told[SEQ_ROUTED:]

    def confirm_all(self) -> None:
        """Note that the log was written anew with `logged()`."""
        self._first_unconfirmed = FIRST_CONTENT + len(self._pieces)
        self._unconfirmed.clear()

    def terminal(self, phase: Phase, closing: str | None) -> Append:
        """Return the frame that ends the stream."""
        seq = FIRST_CONTENT + len(self._pieces)
        return Append(self.stream, seq, (render(self.info, seq, phase, closing).encode(),))
