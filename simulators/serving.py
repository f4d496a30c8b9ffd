"""Carries one answer from headers to its ending, faults included."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from simulators.answers import Answer
from simulators.control import CONTROL, JOURNAL, Fault, FaultKind
from simulators.journal import Call, Outcome
from simulators.pacing import Metronome, Pacing

METRONOME = web.AppKey("metronome", Metronome)
PACING = web.AppKey("pacing", Pacing)

_FLUSH_STEP = 0.001
_WHOLE_OUTCOMES: dict[FaultKind, Outcome] = {"cut": "cut", "malformed": "malformed"}


class Wire(Protocol):
    """How one route writes one answer."""

    def headers(self, answer: Answer, *, stream: bool) -> Mapping[str, str]:
        """Response headers, the content type among them."""
        ...

    def opening(self) -> bytes:
        """Events that come with the first token, before it."""
        ...

    def token(self, answer: Answer, index: int) -> bytes:
        """The event of one visible token."""
        ...

    def closing(self, answer: Answer) -> list[bytes]:
        """The events after the last visible token, the done mark among them where there is one."""
        ...

    def broken(self, status: int | None) -> list[bytes]:
        """The events of an error inside a stream, each as it would stand alone."""
        ...

    def whole(self, answer: Answer) -> bytes:
        """The JSON body of an answer that is not streamed."""
        ...

    def refusal(self, status: int | None) -> web.Response:
        """The response of an error before the answer begins."""
        ...


def open_call(request: web.Request) -> Call:
    """Write the call down, with the turn and attempt its headers name."""
    call = Call(
        turn=request.headers.get("X-Fairlead-Turn"),
        attempt=request.headers.get("X-Fairlead-Attempt"),
        path=request.path,
        routing=request.headers.get("X-Fairlead-Routing"),
    )
    request.app[JOURNAL].add(call)
    return call


def refuse(call: Call, response: web.Response) -> web.Response:
    """End the call with a refusal of the request itself, whatever the fault in force."""
    call.outcome = "refused"
    call.status = response.status
    return response


async def serve(request: web.Request, call: Call, wire: Wire, answer: Answer) -> web.StreamResponse:
    """Answer one request as the fault in force has it, and write down how it ended."""
    # Faults that are counted are meant for answers: routing meets them, and uses none of them up.
    control = request.app[CONTROL]
    fault = control.fault if call.routing else control.take()
    try:
        if fault.fault == "status":
            return _fail(call, wire, fault)
        if fault.before_headers:
            return await _never_begin(request, call, fault)
        if call.stream:
            return await _stream(request, call, wire, answer, fault)
        return await _whole(request, call, wire, answer, fault)
    except (asyncio.CancelledError, ConnectionError):
        _note_hang_up(request, call)
        raise


def _fail(call: Call, wire: Wire, fault: Fault) -> web.Response:
    response = wire.refusal(fault.status)
    call.outcome = "status"
    call.status = response.status
    return response


async def _never_begin(request: web.Request, call: Call, fault: Fault) -> web.StreamResponse:
    if fault.fault == "close":
        call.outcome = "close"
        _reset(_transport(request))
    else:
        call.outcome = "hang"
    return await _forever()


async def _stream(request: web.Request, call: Call, wire: Wire, answer: Answer, fault: Fault) -> web.StreamResponse:
    start = asyncio.get_running_loop().time()
    response = web.StreamResponse(headers=wire.headers(answer, stream=True))
    response.enable_chunked_encoding()
    await response.prepare(request)
    call.status = response.status

    await _play(request, call, wire, answer, fault, start)
    if _gone(request):
        raise ConnectionResetError("The client hung up.")
    await _end_stream(request, call, wire, fault)
    await response.write_eof()
    return response


async def _play(request: web.Request, call: Call, wire: Wire, answer: Answer, fault: Fault, start: float) -> None:
    """Send the tokens up to the fault, or all of them and the closing events."""
    visible = len(answer.tokens)
    strikes = fault.fault in {"event", "cut", "close", "hang"}
    tokens = min(fault.after, visible) if strikes else visible

    def frame(step: int) -> bytes:
        if step < tokens:
            call.tokens = step + 1
            event = _chunk(wire.token(answer, step))
            return event if step else _chunk(wire.opening()) + event
        return b"" if strikes else b"".join(map(_chunk, wire.closing(answer)))

    pacing = fault.pacing(request.app[PACING])
    await request.app[METRONOME].play(_transport(request), frame, steps=tokens + 1, start=start, pacing=pacing)


async def _end_stream(request: web.Request, call: Call, wire: Wire, fault: Fault) -> None:
    """After the last token: what the fault does instead of ending well."""
    transport = _transport(request)
    match fault.fault:
        case "event":
            call.outcome = "event"
            transport.write(b"".join(map(_chunk, wire.broken(fault.status))))
        case "cut":
            call.outcome = "cut"
        case "close":
            call.outcome = "close"
            transport.write(b"400\r\ndata: {")
            await _flushed(transport)
            _reset(transport)
            await _forever()
        case "hang":
            call.outcome = "hang"
            await _forever()
        case "malformed":
            call.outcome = "malformed"
        case _:  # the server is well, whatever its model wrote
            call.outcome = "answered"


async def _whole(request: web.Request, call: Call, wire: Wire, answer: Answer, fault: Fault) -> web.StreamResponse:
    strikes = fault.fault in {"event", "cut", "close", "hang"}
    shown = answer.limited(fault.after) if strikes else answer
    pacing = fault.pacing(request.app[PACING])
    # A decision is short and comes from a small model: as long as an answer's first token.
    await asyncio.sleep(pacing.seconds(1 if call.routing else len(shown.tokens)))

    if fault.fault == "event":
        response = wire.refusal(fault.status)
        call.status, call.outcome = response.status, "event"
        return response
    if fault.fault == "hang":
        call.outcome = "hang"
        return await _forever()
    call.status, call.tokens = 200, len(shown.tokens)
    if fault.fault == "close":
        return await _half(request, call, wire, answer)
    call.outcome = _WHOLE_OUTCOMES.get(fault.fault, "answered")
    return web.Response(body=wire.whole(shown), headers=wire.headers(shown, stream=False))


async def _half(request: web.Request, call: Call, wire: Wire, answer: Answer) -> web.StreamResponse:
    """Promise the whole body, send half of it, reset the connection."""
    body = wire.whole(answer)
    response = web.StreamResponse(headers=wire.headers(answer, stream=False))
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    call.outcome = "close"
    transport = _transport(request)
    await _flushed(transport)
    _reset(transport)
    return await _forever()


def _chunk(event: bytes) -> bytes:
    """One HTTP chunk; nothing for nothing, since an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(event), event) if event else b""


def _transport(request: web.Request) -> asyncio.Transport:
    if request.transport is None:
        raise ConnectionResetError("The client hung up.")
    return request.transport


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _note_hang_up(request: web.Request, call: Call) -> None:
    """The handler was stopped: by the client, unless the answer had ended by then."""
    if call.outcome not in {"running", "hang"}:
        return
    call.client_hung_up = _gone(request)
    if call.outcome == "running":
        call.outcome = "hung_up"


async def _flushed(transport: asyncio.Transport) -> None:
    """Wait until the kernel has every byte, so that a reset does not take tokens with it."""
    await asyncio.sleep(_FLUSH_STEP)
    while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(_FLUSH_STEP)


def _reset(transport: asyncio.Transport) -> None:
    """End the connection with a TCP reset."""
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _forever() -> web.StreamResponse:
    """Wait until the connection is lost, which cancels the handler."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")
