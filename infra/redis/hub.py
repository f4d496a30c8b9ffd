"""One subscription connection per process, shared by all watchers.

Pub/sub may lose anything at any time without a word, so nothing here is the data: a subscriber that may have
missed something is told so and reads the log again.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import structlog
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from schemas.frames import WireFrame

QUEUE_FRAMES: Final = 64
"""Frames a subscriber may leave unread before it is told to read the log instead."""

SEPARATOR: Final = "\x1e"
"""Between the frames of one message."""

_CONFIRM_SECONDS = 2.0
_PING_SECONDS = 5.0
_BACKOFF_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0)

_log = structlog.stdlib.get_logger()

Missed = Literal["resynced", "lagging"]


class HubLost(Exception):
    """The subscription connection broke. The hub connects again by itself."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What arrived since the last look."""

    frames: tuple[WireFrame, ...] = ()
    missed: Missed | None = None
    """Set when frames may have been lost: read the log again."""


class Subscription:
    """One watcher's ear on one channel."""

    def __init__(self, confirmed: asyncio.Event, *, limit: int = QUEUE_FRAMES) -> None:
        self._confirmed = confirmed
        self._limit = limit
        self._frames: deque[WireFrame] = deque()
        self._missed: Missed | None = None
        self._arrived = asyncio.Event()

    @property
    def confirmed(self) -> bool:
        """Whether Redis sends what is published now."""
        return self._confirmed.is_set()

    async def hear(self, within: float) -> Heard:
        """Return everything that arrived, waiting at most `within` seconds for the first of it."""
        if not self._arrived.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._arrived.wait()
        heard = Heard(tuple(self._frames), self._missed)
        self._frames.clear()
        self._missed = None
        self._arrived.clear()
        return heard

    def push(self, frames: list[WireFrame]) -> None:
        """Queue frames. Past the limit all of them are dropped: the log has them, in order."""
        if len(self._frames) + len(frames) > self._limit:
            self.miss("lagging")
            return
        self._frames.extend(frames)
        self._arrived.set()

    def miss(self, why: Missed) -> None:
        """Say that frames may have been lost."""
        self._frames.clear()
        self._missed = why
        self._arrived.set()


@dataclass(slots=True)
class _Channel:
    subscriptions: set[Subscription] = field(default_factory=set[Subscription])
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    unheard: bool = False
    """Whether messages may have passed while nobody listened."""


class Hub:
    """Subscribes while somebody watches; connects again by itself."""

    def __init__(self, url: str) -> None:
        self._pool = ConnectionPool.from_url(
            url,
            decode_responses=True,
            encoding_errors="replace",
            # Replies and messages come as plain lists in the older protocol, on every Redis.
            protocol=2,
            socket_connect_timeout=2,
            socket_timeout=2,
            socket_keepalive=True,
            # A silent reconnection would lose messages without a word.
            retry=Retry(NoBackoff(), 0),
        )
        self._channels: dict[str, _Channel] = {}
        self._awaited: dict[str, int] = {}
        self._connection: AbstractConnection | None = None
        self._pinged = False
        self._reader: asyncio.Task[None] | None = None
        self._beat = time.monotonic()

    @property
    def connected(self) -> bool:
        """Whether messages arrive."""
        return self._connection is not None

    @property
    def seconds_since_progress(self) -> float:
        """Seconds since the reader last did anything, be it only trying to connect."""
        return time.monotonic() - self._beat

    @property
    def channels(self) -> int:
        """How many channels are watched."""
        return len(self._channels)

    @property
    def listeners(self) -> int:
        """How many subscriptions Redis has confirmed."""
        return sum(len(entry.subscriptions) for entry in self._channels.values() if entry.confirmed.is_set())

    async def start(self) -> None:
        """Connect in the background; a Redis that is down is no error."""
        self._reader = asyncio.create_task(self._run(), name="redis-hub")

    async def aclose(self) -> None:
        """Stop listening. Watchers hear nothing more."""
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None

    @asynccontextmanager
    async def watch(self, channel: str) -> AsyncGenerator[Subscription]:
        """Subscribe to `channel` for as long as the context is open.

        Entered once Redis has confirmed, so that what is read from the log afterwards and what is heard leave
        no gap between them. If Redis does not confirm in time the context is entered all the same, and the
        subscription is told `resynced` when it does.
        """
        entry = self._channels.get(channel)
        if entry is None:
            entry = self._channels[channel] = _Channel()
        subscription = Subscription(entry.confirmed)
        entry.subscriptions.add(subscription)
        try:
            if not entry.confirmed.is_set():
                await self._ask("SUBSCRIBE", channel)
                await self._confirmed(entry)
            yield subscription
        finally:
            entry.subscriptions.discard(subscription)
            if not entry.subscriptions and self._channels.get(channel) is entry:
                del self._channels[channel]
                await self._ask("UNSUBSCRIBE", channel)

    async def _confirmed(self, entry: _Channel) -> None:
        entry.unheard = entry.unheard or not self.connected
        try:
            async with asyncio.timeout(_CONFIRM_SECONDS if self.connected else 0.2):
                await entry.confirmed.wait()
        except TimeoutError:
            entry.unheard = True

    async def _ask(self, verb: Literal["SUBSCRIBE", "UNSUBSCRIBE", "PING"], *names: str) -> None:
        """Send a command if connected; a failure is the reader's to notice."""
        connection = self._connection
        # Asked right before the call: an unconnected connection would connect by itself, unseen by the reader.
        if connection is None or not connection.is_connected:
            return
        if verb == "SUBSCRIBE":
            for name in names:
                self._awaited[name] = self._awaited.get(name, 0) + 1
        with suppress(RedisError, OSError):
            await connection.send_command(verb, *names, check_health=False)

    async def _run(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError, HubLost) as error:
                self._deafen()
                failures = 0 if time.monotonic() - started > _PING_SECONDS else failures + 1
                if failures in (0, 1):
                    _log.warning("redis_hub_lost", error=type(error).__name__)
            self._beat = time.monotonic()
            await asyncio.sleep(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])

    async def _listen(self) -> None:
        """Connect, subscribe to everything watched and hand messages over until the connection breaks."""
        connection = self._pool.make_connection()
        try:
            await connection.connect()
            self._connection, self._pinged = connection, False
            self._awaited.clear()
            if self._channels:
                await self._ask("SUBSCRIBE", *self._channels)
            _log.info("redis_hub_listening", channels=len(self._channels))
            while True:
                await self._read(connection)
        finally:
            self._connection = None
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

    async def _read(self, connection: AbstractConnection) -> None:
        """Take one reply. After a quiet while the server is pinged; a second quiet while means it is gone."""
        self._beat = time.monotonic()
        reply = cast("object", await connection.read_response(timeout=_PING_SECONDS, disconnect_on_error=False))
        if reply is None:
            await self._ping()
            return
        self._pinged = False
        if isinstance(reply, list):
            self._take(cast("list[object]", reply))

    async def _ping(self) -> None:
        if self._pinged:
            raise HubLost("Redis answered no ping on the subscription connection")
        self._pinged = True
        await self._ask("PING")

    def _take(self, reply: list[object]) -> None:
        kind, channel = str(reply[0]), str(reply[1])
        if kind == "message":
            self._hand_over(channel, str(reply[2]))
        elif kind == "subscribe":
            self._confirm(channel)

    def _hand_over(self, channel: str, message: str) -> None:
        entry = self._channels.get(channel)
        if entry is None:
            return
        try:
            frames = [WireFrame.decode(line) for line in message.split(SEPARATOR)]
        except ValueError:
            _log.warning("redis_hub_undecodable", channel=channel)
            for subscription in entry.subscriptions:
                subscription.miss("resynced")
            return
        for subscription in entry.subscriptions:
            subscription.push(frames)

    def _confirm(self, channel: str) -> None:
        # Of several requests for one channel (watched, left, watched again) only the last one's answer counts.
        awaited = self._awaited.pop(channel, 1) - 1
        entry = self._channels.get(channel)
        if awaited > 0:
            self._awaited[channel] = awaited
        if entry is None or awaited > 0:
            return
        entry.confirmed.set()
        if entry.unheard:
            entry.unheard = False
            for subscription in entry.subscriptions:
                subscription.miss("resynced")

    def _deafen(self) -> None:
        for entry in self._channels.values():
            entry.confirmed.clear()
            entry.unheard = True
