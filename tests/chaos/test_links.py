"""A link does to connections what a network does."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.links import DELAY, Link, Links


@asynccontextmanager
async def _linked() -> AsyncGenerator[Link]:
    """A link to a server that says everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    links = Links()
    try:
        yield await asyncio.to_thread(links.to, lambda: ("127.0.0.1", port))
    finally:
        links.close()
        server.close()
        await asyncio.sleep(0.1)  # everybody sees the end of their connections


async def _said_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes) -> bytes:
    writer.write(words)
    async with asyncio.timeout(5):
        return await reader.readexactly(len(words))


async def test_a_well_link_carries_bytes_both_ways() -> None:
    """What is sent comes back whole, also what is sent before the far side is connected."""
    async with _linked() as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        assert await _said_back(reader, writer, b"x" * 300_000) == b"x" * 300_000
        writer.close()


async def test_a_slow_link_delays_and_keeps_the_order() -> None:
    """Every piece is late in each direction, and none overtakes another when the link is well again."""
    async with _linked() as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        await _said_back(reader, writer, b"well")
        link.fall_ill("delay")
        await asyncio.sleep(0.05)
        began = time.monotonic()
        writer.write(b"one")
        await asyncio.sleep(0.01)
        link.recover()
        assert await _said_back(reader, writer, b"two") == b"one"
        assert time.monotonic() - began >= DELAY
        writer.close()


async def test_a_cut_link_breaks_what_is_open_and_what_comes() -> None:
    """Connections end, new ones at once, until the link is well."""
    async with _linked() as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        await _said_back(reader, writer, b"well")
        link.fall_ill("cut")
        assert await _ends(reader)
        again, other = await asyncio.open_connection("127.0.0.1", link.port)
        assert await _ends(again)
        other.close()
        writer.close()
        link.recover()
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        assert await _said_back(reader, writer, b"well") == b"well"
        writer.close()


async def test_a_half_open_link_accepts_and_answers_nothing_and_ends_with_the_illness() -> None:
    """Old and new connections stay open and silent; since bytes were lost in them, they end afterwards."""
    async with _linked() as link:
        old, writer = await asyncio.open_connection("127.0.0.1", link.port)
        await _said_back(old, writer, b"well")
        link.fall_ill("half-open")
        await asyncio.sleep(0.05)
        new, other = await asyncio.open_connection("127.0.0.1", link.port)
        for reader, end in ((old, writer), (new, other)):
            end.write(b"anybody?")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await reader.read(1)
        link.recover()
        assert await _ends(old)
        assert await _ends(new)
        writer.close()
        other.close()


async def _ends(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(5):
            return await reader.read(1) == b""
    except ConnectionError:
        return True
