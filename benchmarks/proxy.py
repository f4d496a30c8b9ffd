"""A relay in front of PostgreSQL that counts what passes: who asked, how many statements, how many round trips."""

import asyncio
import threading
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_NEGOTIATIONS: Final = (80877103, 80877104)
"""Codes of the first message of a client that asks for encryption; its second is the ordinary one."""

_ROUND_TRIP: Final = {"S": "round trips", "Q": "round trips", "H": "round trips"}
_STATEMENT: Final = {"E": "statements", "Q": "statements", "P": "parsed"}


class Reading:
    """One client's side of the protocol, without I/O: fed bytes, counts the messages under the client's name.

    Args:
        counts: by client and what was counted.
        known: names of statements by their text; each time one runs it is counted under its name too.
    """

    def __init__(self, counts: "Counter[tuple[str, str]]", known: Mapping[str, str] | None = None) -> None:
        self._counts = counts
        self._known = known or {}
        self._prepared: dict[bytes, str | None] = {}
        self._bound: str | None = None
        self._buffer = bytearray()
        self._name: str | None = None

    def feed(self, data: bytes) -> None:
        """Take what the client sent."""
        self._buffer += data
        while (length := self._next()) and len(self._buffer) >= length:
            self._take(bytes(self._buffer[:length]))
            del self._buffer[:length]

    def _next(self) -> int:
        """Return how long the message at the front is, once that can be known."""
        typed = self._name is not None
        head = 5 if typed else 4
        if len(self._buffer) < head:
            return 0
        return int.from_bytes(self._buffer[head - 4 : head], "big") + typed

    def _take(self, message: bytes) -> None:
        if self._name is None:
            if int.from_bytes(message[4:8], "big") not in _NEGOTIATIONS:
                words = message[8:].split(b"\0")
                named = dict(zip(words[::2], words[1::2], strict=False))
                self._name = named.get(b"application_name", b"unnamed").decode()
            return
        kind = chr(message[0])
        for meaning in (_ROUND_TRIP, _STATEMENT):
            if kind in meaning:
                self._counts[self._name, meaning[kind]] += 1
        if named := self._named(kind, message[5:]):
            self._counts[self._name, named] += 1

    def _named(self, kind: str, body: bytes) -> str | None:
        """Return the name of a known statement that runs with this message."""
        match kind:
            case "P":
                name, _, rest = body.partition(b"\0")
                self._prepared[name] = self._known.get(rest.partition(b"\0")[0].decode())
            case "B":
                self._bound = self._prepared.get(body.partition(b"\0")[2].partition(b"\0")[0])
            case "E":
                return self._bound
            case _:
                pass
        return None


class CountingProxy:
    """Listens on a port of its own, in a thread of its own."""

    def __init__(self, database: str, *, known: Mapping[str, str] | None = None) -> None:
        self._known = known or {}
        self._target = urlsplit(database)
        self._loop = asyncio.new_event_loop()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._relays: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def database(self) -> str:
        """The address of the same database through here."""
        user = self._target.netloc.rpartition("@")[0]
        return urlunsplit(self._target._replace(netloc=f"{user}@127.0.0.1:{self._port}"))

    @property
    def counts(self) -> "Counter[tuple[str, str]]":
        """How many of what each application asked so far; connecting and signing in are not counted."""
        return self._counts.copy()

    @contextmanager
    def running(self) -> Generator["CountingProxy"]:
        """Relay while the context lasts."""
        listening = threading.Event()
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(listening),), daemon=True)
        thread.start()
        listening.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(10)
            self._loop.close()

    async def _serve(self, listening: threading.Event) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        listening.set()
        await self._stop.wait()
        server.close()
        relays = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)

    async def _relay(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(self._target.hostname, self._target.port)
        reading = Reading(self._counts, self._known)
        try:
            await asyncio.gather(_pump(client, to_server, reading), _pump(server, to_client, None))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            to_server.close()
            to_client.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, reading: Reading | None) -> None:
    while data := await source.read(65_536):
        if reading is not None:
            reading.feed(data)
        target.write(data)
        await target.drain()
    target.close()
