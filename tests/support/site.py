"""A site on a loopback address that counts as public, and an internal service on another one that does not."""

import gzip
import socket
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

SITE = "127.0.0.2"
INTERNAL = "127.0.0.1"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Site:
    """A real web server at both addresses of one port; what each was asked is written down."""

    port: int = 0
    handlers: dict[str, Handler] = field(default_factory=dict[str, Handler])
    asked: list[str] = field(default_factory=list[str])
    """`address path` of each request."""

    def url(self, path: str = "/", host: str = "site.test") -> str:
        return f"http://{host}:{self.port}{path}"

    def page(self, path: str, body: bytes | str, content_type: str = "text/html", **headers: str) -> None:
        raw = body.encode() if isinstance(body, str) else body

        async def handle(request: web.BaseRequest) -> web.Response:
            return web.Response(body=raw, headers={"Content-Type": content_type, **headers})

        self.handlers[path] = handle

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        async def handle(request: web.BaseRequest) -> web.Response:
            return web.Response(status=status, headers={"Location": to})

        self.handlers[path] = handle

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        address = str(request.transport.get_extra_info("sockname")[0]) if request.transport else ""
        self.asked.append(f"{address} {request.path}")
        if (handler := self.handlers.get(request.path)) is None:
            return web.Response(status=404)
        return await handler(request)


@asynccontextmanager
async def serving() -> AsyncGenerator[Site]:
    """A server that may be fetched from as `site.test`, and that has an internal face as well."""
    site = Site()
    server = web.Server(site.answer)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        for listener in _one_port():
            await web.SockSite(runner, listener).start()
            site.port = int(listener.getsockname()[1])
        yield site
    finally:
        await runner.cleanup()


def _one_port() -> list[socket.socket]:
    """Return listeners at both addresses with the same port: one that is free here may be taken there."""
    while True:
        public = socket.create_server((SITE, 0))
        try:
            return [public, socket.create_server((INTERNAL, public.getsockname()[1]))]
        except OSError:
            public.close()


class Names:
    """A name server that says what it is told to, each answer once, the last for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(told) for name, told in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        told = self._answers.get(host)
        if told is None:
            raise OSError(f"{host} is unknown")
        return told.pop(0) if len(told) > 1 else told[0]


def bomb(megabytes: int) -> bytes:
    """A few kilobytes of gzip that become so many megabytes."""
    return gzip.compress(bytes(megabytes * 2**20))


def deflated(body: bytes) -> bytes:
    """What `Content-Encoding: deflate` means."""
    return zlib.compress(body)
