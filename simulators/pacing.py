"""One timer that sends the tokens of every stream when they are due."""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

_TICK = 0.002


@dataclass(frozen=True, slots=True)
class Pacing:
    """How fast the model is, in milliseconds."""

    first_token_ms: float = 120
    inter_token_ms: float = 15

    def seconds(self, tokens: int) -> float:
        """How long an answer of `tokens` tokens takes from request to last token."""
        return (self.first_token_ms + self.inter_token_ms * max(0, tokens - 1)) / 1000


@dataclass(slots=True)
class Stream:
    """A stream under way: `frame(i)` gives the bytes of step i, each `gap` seconds after the one before."""

    transport: asyncio.Transport
    frame: Callable[[int], bytes]
    steps: int
    due: float
    gap: float
    done: asyncio.Future[None]
    sent: int = 0


@dataclass(order=True, slots=True)
class _Entry:
    due: float
    order: int
    stream: Stream = field(compare=False)


class Metronome:
    """Wakes at most every two milliseconds and writes what is due on all streams."""

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._order = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0

    async def play(
        self,
        transport: asyncio.Transport,
        frame: Callable[[int], bytes],
        *,
        steps: int,
        start: float,
        pacing: Pacing,
    ) -> None:
        """Send steps 0 to `steps` - 1, the first at `start` plus the first token's wait.

        Returns when the last is written or the peer is gone.
        """
        if steps <= 0:
            return
        stream = Stream(
            transport=transport,
            frame=frame,
            steps=steps,
            due=start + pacing.first_token_ms / 1000,
            gap=pacing.inter_token_ms / 1000,
            done=asyncio.get_running_loop().create_future(),
        )
        self._push(stream)
        self._arm(stream.due)
        await stream.done

    def _push(self, stream: Stream) -> None:
        self._order += 1
        heapq.heappush(self._heap, _Entry(stream.due, self._order, stream))

    def _arm(self, due: float) -> None:
        """Wake at `due`, unless an earlier waking is arranged."""
        if self._timer is not None:
            if self._wakes_at <= due:
                return
            self._timer.cancel()
        self._wakes_at = due
        self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        """Send what is due now and within the tick."""
        horizon = asyncio.get_running_loop().time() + _TICK
        self._timer, self._wakes_at = None, horizon
        try:
            while self._heap and self._heap[0].due <= horizon:
                self._send_due(heapq.heappop(self._heap).stream, horizon)
        finally:
            if self._heap:
                self._arm(self._heap[0].due)

    def _send_due(self, stream: Stream, horizon: float) -> None:
        if stream.done.done():
            return
        if stream.transport.is_closing():
            stream.done.set_result(None)
            return
        frames: list[bytes] = []
        while stream.sent < stream.steps and stream.due <= horizon:
            frames.append(stream.frame(stream.sent))
            stream.sent += 1
            stream.due += stream.gap
        stream.transport.write(b"".join(frames))
        if stream.sent == stream.steps:
            stream.done.set_result(None)
        else:
            self._push(stream)
