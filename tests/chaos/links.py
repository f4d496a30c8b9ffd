"""Links between processes and servers that can be made slow, cut, or left half-open: accepted, and never answered."""

import asyncio
import threading
from collections.abc import Callable
from typing import Final, Literal, cast

import uvloop

Ailment = Literal["delay", "cut", "half-open"]

AILMENTS: Final[tuple[Ailment, ...]] = ("delay", "cut", "half-open")
DELAY: Final = 0.15
"""Seconds that every piece takes longer, in each direction."""

_Address = tuple[str, int]


class Link:
    """A TCP proxy to one server, on a port of its own. Its methods may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Callable[[], _Address]) -> None:
        self.port = 0
        self.ailment: Ailment | None = None
        self._loop = loop
        self._target = target
        self._open: set[_End] = set()
        self._server: asyncio.Server | None = None

    def fall_ill(self, ailment: Ailment) -> None:
        """Be slow, cut, or half-open from now on, with the connections there are and with new ones."""
        self._loop.call_soon_threadsafe(self._change, ailment)

    def recover(self) -> None:
        """Carry everything again. What was swallowed is lost, so connections that lost something end."""
        self._loop.call_soon_threadsafe(self._change, None)

    def _change(self, ailment: Ailment | None) -> None:
        if ailment == "cut" or self.ailment == "half-open":
            for end in list(self._open):
                end.cut()
        self.ailment = ailment

    async def listen(self) -> None:
        """Open the port."""
        self._server = await self._loop.create_server(lambda: _Near(self, self._target), "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def end(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for end in list(self._open):
            end.cut()

    def opened(self, end: "_End") -> None:
        """Note a connection."""
        self._open.add(end)

    def closed(self, end: "_End") -> None:
        """Forget a connection."""
        self._open.discard(end)


class _End(asyncio.Protocol):
    """One side of a connection; what it receives goes to its `peer`, as the link is doing just then."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.peer: _End | None = None
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.link.opened(self)
        for data in self._early:
            self.transport.write(data)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self.peer is None or self.link.ailment == "half-open":
            return
        loop = asyncio.get_running_loop()
        if self.link.ailment == "delay":
            self._due = loop.time() + DELAY
        if self._due > loop.time():
            # What comes after the delay must not overtake what still waits.
            loop.call_at(self._due, self.peer.put, data)
        else:
            self.peer.put(data)

    def put(self, data: bytes) -> None:
        """Send to this side, now or when it is there."""
        if self.transport is None:
            self._early.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def cut(self) -> None:
        """Break this side; the other follows."""
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.link.closed(self)
        peer, self.peer = self.peer, None
        if peer is not None and peer.transport is not None:
            peer.transport.close()


class _Near(_End):
    """The side of whoever connected."""

    def __init__(self, link: Link, target: Callable[[], _Address]) -> None:
        super().__init__(link)
        self._target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.link.ailment == "cut":
            self.cut()
        elif self.link.ailment != "half-open":
            self.peer = _End(self.link)
            self.peer.peer = self
            task = asyncio.get_running_loop().create_task(self._connect(self.peer))
            _CONNECTING.add(task)
            task.add_done_callback(_CONNECTING.discard)

    async def _connect(self, far: _End) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, *self._target())
        except OSError:
            self.cut()
            return
        if self.transport is None or self.transport.is_closing():
            far.cut()


_CONNECTING: Final[set["asyncio.Task[None]"]] = set()


class Links:
    """Links on an event loop in a thread of its own, so that nobody's waiting slows them."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._links: list[Link] = []
        self._thread = threading.Thread(target=self._run, name="links", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        for link in self._links:
            link.end()
        await asyncio.sleep(0.05)

    def to(self, target: Callable[[], _Address]) -> Link:
        """Open a link to a server; where it is, is asked for each connection."""
        link = Link(self._loop, target)
        self._links.append(link)
        asyncio.run_coroutine_threadsafe(link.listen(), self._loop).result(10)
        return link

    def close(self) -> None:
        """End every link."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
