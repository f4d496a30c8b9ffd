"""Reading in a process of its own: a file made to hang or to fill the memory costs that file, and no other."""

import asyncio
import multiprocessing
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from schemas.knowledge import Document
from workers.knowledge.blocks import Unreadable
from workers.knowledge.characters import decoded
from workers.knowledge.media import Media
from workers.knowledge.read import read
from workers.knowledge.webpage import links

SECONDS: Final = 60.0
MEMORY: Final = 2 * 2**30
"""Bytes of address space."""

_START_SECONDS: Final = 60.0
_GRACE: Final = 5
_SPAWN: Final = multiprocessing.get_context("spawn")

T = TypeVar("T")


class Reader:
    """Reads one document at a time; use it as a context."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._process: BaseProcess | None = None
        self._connection: Connection[Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    async def read(self, raw: bytes, media: Media, *, source: str, charset: str | None = None) -> Document:
        """Return a document, as `read.read` does.

        Raises:
            Unreadable: also if it takes too long or too much memory.
        """
        return await asyncio.to_thread(self._ask, _read, (raw, media, source, charset))

    async def links(self, raw: bytes, *, charset: str | None = None) -> list[str]:
        """Return the links of a page, as `webpage.links` does.

        Raises:
            Unreadable: also if it takes too long or too much memory.
        """
        return await asyncio.to_thread(self._ask, _links, (raw, charset))

    def _ask(self, work: "Callable[..., T]", given: tuple[object, ...]) -> T:
        try:
            connection = self._connected()
            connection.send((work, given, self._seconds))
            if not connection.poll(self._seconds):
                self._end()
                raise Unreadable(f"It took longer than {self._seconds:g} s to read.")
            told: T | Unreadable = connection.recv()
        except (EOFError, OSError):
            self._end()
            raise Unreadable("Reading it took more memory or time than there is for a document.") from None
        if isinstance(told, Unreadable):
            raise told
        return told

    def _connected(self) -> "Connection[Any, Any]":
        if self._connection is None:
            ends = cast("tuple[Connection[Any, Any], Connection[Any, Any]]", _SPAWN.Pipe())
            self._connection, theirs = ends
            self._process = _SPAWN.Process(target=_serve, args=(theirs,), name="reader", daemon=True)
            self._process.start()
            theirs.close()
            if not self._connection.poll(_START_SECONDS):
                raise OSError("the reading process did not start")
            self._connection.recv()
        return self._connection

    def _end(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is not None:
            process.kill()
            process.join()
        if connection is not None:
            connection.close()


def _read(raw: bytes, media: Media, source: str, charset: str | None) -> Document:
    return read(raw, media, source=source, charset=charset)


def _links(raw: bytes, charset: str | None) -> list[str]:
    return links(decoded(raw, charset))


def _serve(connection: "Connection[Any, Any]") -> None:
    """Say that it is there, then answer until the other end is closed. An alarm ends it also in a library's C code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    connection.send("ready")
    while True:
        try:
            work, given, seconds = cast("tuple[Callable[..., object], tuple[object, ...], float]", connection.recv())
        except EOFError:
            return
        signal.alarm(int(seconds) + _GRACE)
        try:
            told = work(*given)
        except Unreadable as error:
            told = error
        except MemoryError:
            told = Unreadable("Reading it takes more memory than there is for a document.")
        except RecursionError:
            told = Unreadable("It is nested too deeply.")
        signal.alarm(0)
        connection.send(told)
