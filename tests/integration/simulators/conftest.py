"""Simulators for the tests, a client that sees bytes, and patience with a deadline."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from simulators.testing import SimulatorHandle, running

DEADLINE_SECONDS = 20


@dataclass(frozen=True)
class RawResponse:
    """A response as it crossed the wire: `chunks` are the body's HTTP chunks, `ended` whether the body ended well."""

    head: str
    chunks: list[bytes]
    ended: bool
    reset: bool

    @property
    def status(self) -> int:
        return int(self.head.split(" ", 2)[1])

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


RawCall = Callable[..., Coroutine[None, None, RawResponse]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]


async def _raw(sim: SimulatorHandle, method: str, path: str, body: object = None, **headers: str) -> RawResponse:
    address = urlsplit(sim.base_url)
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    named = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(content)}\r\n{lines}\r\n"
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    received, reset = b"", False
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            writer.write(head.encode() + content)
            while more := await reader.read(65536):
                received += more
    except ConnectionResetError:
        reset = True
    finally:
        writer.close()
    return _parsed(received, reset)


def _parsed(received: bytes, reset: bool) -> RawResponse:
    head, _, rest = received.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return RawResponse(head.decode(), [rest], not reset, reset)
    chunks: list[bytes] = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return RawResponse(head.decode(), chunks, True, reset)
        chunks.append(rest[:length])
        rest = rest[length + 2 :]
    return RawResponse(head.decode(), chunks, False, reset)


@pytest.fixture
def raw() -> RawCall:
    """Call a simulator and see the bytes."""
    return _raw


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds; fail after a deadline."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():  # noqa: ASYNC110 - a condition of any kind has no event
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
async def openai_sim() -> AsyncGenerator[SimulatorHandle]:
    """A fast simulator of the OpenAI dialect."""
    async with running("openai") as sim:
        yield sim


@pytest.fixture
async def tgi_sim() -> AsyncGenerator[SimulatorHandle]:
    """A fast simulator of the TGI dialect, with the adapter `discovery` loaded."""
    async with running("tgi") as sim:
        yield sim


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "frontier", "messages": [{"role": "user", "content": "hello"}]} | more


@pytest.fixture
def chat_body() -> Callable[..., dict[str, Any]]:
    """The body of a small chat request."""
    return chat
