"""Frames as server-sent events, resumable from any of them."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Header
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from infra.telemetry.metrics import CUT_WATCHERS, FRAMES_SENT, RESUMES, WATCHERS
from producers.gateway.auth import Principal, Submitter
from producers.gateway.documents import error_responses, event_stream
from producers.gateway.parts import Parts, PartsOf
from producers.gateway.problems import unknown_turn
from producers.gateway.strict_json import StrictJsonRoute
from producers.gateway.turns import TurnPath
from producers.gateway.watch import FROM_THE_START, Located, Telling
from schemas.frames import WireFrame
from schemas.ids import TurnId

KEEP_ALIVE_SECONDS: Final = 10.0
SEND_SECONDS: Final = 20.0
"""How long a client may leave what was sent unread before it is cut. It comes back with its position."""

DONE: Final = b"data: [DONE]\n\n"
_KEEP_ALIVE: Final = b": keep-alive\n\n"
_RECONNECT: Final = b": reconnect\n\n"

BeforeDone = Callable[[WireFrame], Awaitable[bytes]]

_log = structlog.stdlib.get_logger()

router = APIRouter(tags=["turns"], route_class=StrictJsonRoute)


class EventStream(StreamingResponse):
    """A stream whose every write is bounded: a client that reads nothing must not hold its watcher for ever."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], status_code: int = 200, *, door: str) -> None:
        super().__init__(content, status_code, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._door = door

    async def stream_response(self, send: Send) -> None:
        """Stream as the base class does, giving up on a client that stopped reading."""

        async def bounded(message: Message) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        try:
            with WATCHERS.labels(self._door).track_inprogress():
                await super().stream_response(bounded)
        except TimeoutError:
            CUT_WATCHERS.labels(self._door).inc()
            _log.info("watcher_cut", door=self._door)


def sse(frames: Sequence[WireFrame]) -> bytes:
    """Return frames as server-sent events."""
    return "".join(f"id: {frame.seq}\ndata: {frame.json}\n\n" for frame in frames).encode()


async def events(
    parts: Parts, turn: Located, after: int, *, door: str, before_done: BeforeDone | None = None
) -> AsyncGenerator[bytes]:
    """Yield a turn's frames on the wire, keep-alives between them, `[DONE]` after the last.

    A stream that ends without `[DONE]` was let go: the client resumes it.

    Args:
        parts: the gateway's parts.
        turn: what to watch.
        after: number of the last frame the client has.
        door: for the metrics.
        before_done: makes something to send between the terminal frame and `[DONE]`.
    """
    quiet_since = time.monotonic()
    telling = Telling(after)
    async with aclosing(parts.watcher.batches(turn, telling)) as batches:
        async for frames in batches:
            if frames:
                FRAMES_SENT.labels(door).inc(len(frames))
                yield sse(frames)
                if before_done is not None and frames[-1].terminal:
                    yield await before_done(frames[-1])
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= KEEP_ALIVE_SECONDS:
                yield _KEEP_ALIVE
                quiet_since = time.monotonic()
    yield DONE if telling.ended else _RECONNECT


async def located(parts: Parts, principal: Principal, turn_id: str) -> Located:
    """Return where to watch a turn.

    Raises:
        ProblemError: 404 when there is none, or it is not this principal's.
        LedgerUnavailable: nobody knows.
    """
    turn = await parts.watcher.locate(TurnId(turn_id), tenant=principal.tenant)
    if turn is None or not principal.may_touch(turn.tenant, turn.conversation_id):
        raise unknown_turn()
    return turn


@router.get(
    "/v1/turns/{turn_id}/events",
    operation_id="watchTurn",
    summary="Watch a turn's frames",
    response_class=EventStream,
    responses={
        200: event_stream("The frames above `Last-Event-ID`, then `[DONE]`."),
        **error_responses(401, 403, 404, 422, 503),
    },
)
async def watch_turn(
    turn_id: TurnPath,
    principal: Submitter,
    parts: PartsOf,
    last_event_id: Annotated[
        int | None,
        Header(ge=-1, le=1_000_000, description="Number of the last frame seen; the stream goes on after it."),
    ] = None,
) -> Response:
    """Stream every frame of the turn, or those after `Last-Event-ID`, within an hour of its end and beyond."""
    turn = await located(parts, principal, turn_id)
    if last_event_id is not None:
        RESUMES.labels("sse").inc()
    after = FROM_THE_START if last_event_id is None else last_event_id
    return EventStream(events(parts, turn, after, door="sse"), door="sse")
