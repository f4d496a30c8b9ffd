"""What the provider tests share: a request, a server of raw bytes, a patient wait."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import JsonValue

from schemas.completions import CompletionRequest, Delta, Finish, Message, ModelClocks
from schemas.ids import TurnId

Item = TypeVar("Item")

SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"dimension": {"type": "string"}, "html_response": {"type": "string"}},
}
PATIENT = ModelClocks(connect=2, first_token=10, between_tokens=10, total=20)
TURN = TurnId("8f14e45f-ceea-567f-a0ab-0123456789ab")


def asking(
    model: str,
    adapter: str | None = None,
    *,
    ordinal: int = 1,
    said: str = "What does it cost?",
    clocks: ModelClocks = PATIENT,
    traceparent: str | None = None,
) -> CompletionRequest:
    """Return a request as the executor makes it."""
    return CompletionRequest(
        turn_id=TURN,
        ordinal=ordinal,
        model=model,
        adapter=adapter,
        messages=(Message("system", "You are the discovery agent. Answer in JSON."), Message("user", said)),
        json_schema=SCHEMA,
        max_tokens=300,
        clocks=clocks,
        traceparent=traceparent,
    )


async def listen(items: AsyncIterator[Item], got: list[Item]) -> None:
    """Take all `items`, so that those before an error are in `got`."""
    async for item in items:
        got.append(item)  # noqa: PERF401 - a comprehension would lose them with the error


def text_of(items: list[Delta | Finish]) -> str:
    """Return the text of the deltas."""
    return "".join(item.text for item in items if isinstance(item, Delta))


async def until(condition: Callable[[], bool], *, what: str) -> None:
    """Wait until `condition` holds, and fail naming `what` after five seconds."""
    try:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - conditions of any kind, few of them events
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"it did not come to this: {what}") from None


@dataclass
class RawServer:
    """A server that writes what a test tells it to, to whoever asks anything."""

    url: str = ""
    requests: list[bytes] = field(default_factory=list[bytes])
    connections: int = 0
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


Script = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@contextlib.asynccontextmanager
async def raw_server(script: Script, *, keep_alive: bool = False) -> AsyncGenerator[RawServer]:
    """Run `script` for each request; what it writes are the response's bytes, head and all.

    The connection ends with the script unless kept alive.
    """
    state = RawServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        try:
            while head := await _head(reader):
                state.requests.append(head + await reader.readexactly(_length(head)))
                watching = asyncio.create_task(_watch(reader, writer, state))
                try:
                    await script(writer)
                    await writer.drain()
                finally:
                    watching.cancel()
                if not keep_alive:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            state.hung_up.set()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def _watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
    while not (reader.at_eof() or writer.transport.is_closing()):  # noqa: ASYNC110 - streams have no such event
        await asyncio.sleep(0.005)
    state.hung_up.set()
