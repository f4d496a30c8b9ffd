"""Wires the simulators do not draw: servers of raw bytes, and places where no server is."""

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Iterator
from itertools import repeat

import pytest

from schemas.completions import (
    BackendFailed,
    Delta,
    Finish,
    Incomplete,
    InvalidRequest,
    Malformed,
    ModelClocks,
    TimedOut,
    Unavailable,
)
from tests.integration.providers.conftest import Kind, Way, way_to
from tests.integration.providers.support import HEAD, RawServer, Script, listen, raw_server, text_of

SHORT = ModelClocks(connect=2, first_token=0.25, between_tokens=0.25, total=5)
SECRET = "the visitor's own words"


def token(kind: Kind, text: str, *, special: bool = False) -> bytes:
    if kind == "tgi":
        return _event({"token": {"id": 1, "text": text, "logprob": -0.1, "special": special}, "details": None})
    return _event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def finish(kind: Kind) -> bytes:
    if kind == "tgi":
        end = {"id": 2, "text": "<|im_end|>", "logprob": 0, "special": True}
        return _event({"token": end, "details": {"finish_reason": "eos_token", "generated_tokens": 2}})
    return _event({"choices": [{"index": 0, "delta": {"content": None}, "finish_reason": "stop"}]})


def done(kind: Kind) -> bytes:
    return b"" if kind == "tgi" else b"data: [DONE]\n\n"


def _event(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def writes(*pieces: bytes, every: float = 0) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every)

    return script


def drips(start: bytes, drop: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        for piece in repeat(drop):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)

    return script


def then_waits(start: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        await asyncio.Event().wait()

    return script


async def items_of(way: Way, clocks: ModelClocks = SHORT) -> list[Delta | Finish]:
    return [item async for item in way.provider.stream(way.asking(clocks=clocks, said=SECRET))]


async def hung_up(server: RawServer) -> None:
    async with asyncio.timeout(5):
        await server.hung_up.wait()


async def test_dripping_comments_stop_no_clock(kind: Kind) -> None:
    """A server that keeps its connection warm with comments is timed out as if it were silent."""
    for start, clock in ((HEAD, "first token"), (HEAD + token(kind, "Hi"), "next token")):
        async with raw_server(drips(start, b": still here\n\n")) as server, way_to(kind, server.url) as way:
            with pytest.raises(TimedOut, match=clock):
                await items_of(way)
            await hung_up(server)


async def test_dripping_empty_chunks_stop_no_clock(kind: Kind) -> None:
    """Chunks with a role and no text, or special tokens, are not content."""
    empty = token(kind, "<|x|>", special=True)
    if kind != "tgi":
        empty = _event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    async with raw_server(drips(HEAD, empty)) as server, way_to(kind, server.url) as way:
        with pytest.raises(TimedOut, match="first token"):
            await items_of(way)


@pytest.mark.parametrize("garbage", [b"data: {\n\n", b"data: nonsense\n\n", b"data: []\n\n", b'data: {"a":1}\n\n'])
async def test_garbage(kind: Kind, garbage: bytes) -> None:
    """An event that is no JSON of the dialect is malformed, after the text before it, and says nothing of it."""
    got: list[Delta | Finish] = []
    async with raw_server(writes(HEAD, token(kind, "Hi") + garbage)) as server, way_to(kind, server.url) as way:
        with pytest.raises(Malformed) as failed:
            await listen(way.provider.stream(way.asking()), got)
    assert text_of(got) == "Hi"
    assert "nonsense" not in str(failed.value)


async def test_an_endless_line(kind: Kind) -> None:
    """A server that never ends its line is cut off, not collected."""
    async with raw_server(drips(HEAD, b"x" * 400_000)) as server, way_to(kind, server.url) as way:
        with pytest.raises(Malformed, match="bytes long"):
            await items_of(way, ModelClocks(2, 10, 10, 20))
        await hung_up(server)


async def test_line_endings_and_splits(kind: Kind) -> None:
    """CRLF, missing spaces and events in single bytes are read like any other."""
    wire = (token(kind, "Hé") + token(kind, "llo") + finish(kind)).replace(b"\n", b"\r\n").replace(b"data: ", b"data:")
    pieces = (wire[i : i + 1] for i in range(len(wire)))
    async with raw_server(writes(HEAD, *pieces)) as server, way_to(kind, server.url) as way:
        items = await items_of(way, ModelClocks(2, 10, 10, 20))
    assert text_of(items) == "Héllo"
    assert isinstance(items[-1], Finish)


async def test_a_compressing_proxy(kind: Kind) -> None:
    """A stream that something on the way has compressed is read."""
    body = gzip.compress(token(kind, "Hi") + finish(kind) + done(kind))
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    async with raw_server(writes(head + body)) as server, way_to(kind, server.url) as way:
        assert text_of(await items_of(way)) == "Hi"


@pytest.mark.parametrize("kind_of_page", [b"text/html", b"application/json"])
async def test_not_an_event_stream(kind: Kind, kind_of_page: bytes) -> None:
    """A 200 that is a page or a plain JSON answer is malformed."""
    page = HEAD.replace(b"text/event-stream", kind_of_page) + b"{}"
    async with raw_server(writes(page)) as server, way_to(kind, server.url) as way:
        with pytest.raises(Malformed, match="no event stream"):
            await items_of(way)


async def test_an_error_page_without_an_end(kind: Kind) -> None:
    """Of an error's body no more is read than an error needs, however much there is."""
    head = b"HTTP/1.1 500 Oh\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    async with raw_server(drips(head, b"x" * 50_000)) as server, way_to(kind, server.url) as way:
        with pytest.raises(BackendFailed):
            await items_of(way, ModelClocks(2, 10, 10, 20))
        await hung_up(server)


async def test_redirects_are_not_followed(kind: Kind) -> None:
    """A redirect is an error of the address: following it would be a second request."""
    head = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with raw_server(writes(head), keep_alive=True) as server, way_to(kind, server.url) as way:
        with pytest.raises(InvalidRequest, match="redirects"):
            await items_of(way)
    assert len(server.requests) == 1


async def test_a_refusal_that_asks_to_be_asked_again(kind: Kind) -> None:
    """A 400 to which one of the official clients would send a second request, gets none."""
    said = f"The following `model_kwargs` are not used by the model: ['adapter_id'] {SECRET}".encode()
    body = json.dumps({"error": said.decode(), "error_type": "validation"}).encode()
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with raw_server(writes(head + body), keep_alive=True) as server, way_to(kind, server.url) as way:
        with pytest.raises(InvalidRequest) as failed:
            await items_of(way)
    assert len(server.requests) == 1
    assert SECRET not in str(failed.value)


async def test_a_stream_without_an_end(kind: Kind) -> None:
    """Once the model has said why it stopped the answer is whole, also if the server then says nothing more."""
    async with (
        raw_server(then_waits(HEAD + token(kind, "Hi") + finish(kind))) as server,
        way_to(kind, server.url) as way,
    ):
        items = await items_of(way, ModelClocks(2, 5, 5, 10))
        assert (text_of(items), type(items[-1])) == ("Hi", Finish)
        await hung_up(server)


async def test_a_reset_after_the_finish(kind: Kind) -> None:
    """A connection that breaks after the finish reason takes nothing away."""
    start = HEAD + token(kind, "Hi") + finish(kind)

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with raw_server(script) as server, way_to(kind, server.url) as way:
        items = await items_of(way)
    assert (text_of(items), type(items[-1])) == ("Hi", Finish)


async def test_half_an_event(kind: Kind) -> None:
    """A stream that ends inside an event is incomplete, and half an event is no text."""
    half = token(kind, "there")[:-6]
    got: list[Delta | Finish] = []
    async with raw_server(writes(HEAD + token(kind, "Hi") + half)) as server, way_to(kind, server.url) as way:
        with pytest.raises(Incomplete):
            await listen(way.provider.stream(way.asking()), got)
    assert text_of(got) == "Hi"


async def test_connections_are_used_again(kind: Kind) -> None:
    """Calls one after the other share one connection, also where a done mark ends the stream."""
    body = token(kind, "Hi") + finish(kind) + done(kind)
    head = HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked")
    chunks = head + b"%x\r\n" % len(body) + body + b"\r\n"
    script = writes(chunks, b"0\r\n\r\n", every=0.01)
    async with raw_server(script, keep_alive=True) as server, way_to(kind, server.url) as way:
        for _ in range(3):
            assert text_of(await items_of(way)) == "Hi"
    assert (len(server.requests), server.connections) == (3, 1)


async def test_a_closed_port(kind: Kind) -> None:
    """A port that nobody listens on is unavailable, and the message names the place."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with way_to(kind, f"http://127.0.0.1:{port}") as way:
            with pytest.raises(Unavailable, match=f"127.0.0.1:{port} .*is it up"):
                await items_of(way)


async def test_a_black_hole(kind: Kind, black_hole: int) -> None:
    """A server that accepts no connection is timed out by the connect clock."""
    async with way_to(kind, f"http://127.0.0.1:{black_hole}") as way:
        with pytest.raises(TimedOut, match="connect clock"):
            await items_of(way, ModelClocks(connect=0.25, first_token=5, between_tokens=5, total=10))


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port whose queue of connections is full, so that the kernel lets further ones wait."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()
