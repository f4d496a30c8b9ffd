"""Freezing, killing and cutting off anything that talks to PostgreSQL or Redis, between two of its round trips.

A `Process` is a task that may take so many round trips and then stands still until it is allowed more: what a signal,
a long garbage collection or a slow network does to it, at every place where it matters, and the same each time. The
gates stand in the drivers, so whatever the product's parts are called, they pass through.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from enum import Enum
from typing import Any, Final, Generic, TypeVar, cast

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline as RedisPipeline
from redis.exceptions import ConnectionError as RedisGone
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from infra.processes import end

T = TypeVar("T")


class Fault(Enum):
    """What Redis or the ledger does to a process."""

    NONE = "it answers"
    AWAY = "it takes nothing"
    UNHEARD = "it takes everything and its answers are lost"
    LEDGER_UNHEARD = "the ledger takes a statement and its answer is lost, once"


class Gate:
    """Lets one process through, so many round trips at a time."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.still = asyncio.Event()
        """Set while the process may do nothing and nothing of it is under way."""
        self._left: int | None = 0
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def open(self, trips: int | None) -> None:
        """Allow so many round trips; None: as many as it wants."""
        self.still.clear()
        self._left = trips
        while self._waiting and self._left != 0:
            self._count()
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
        self._look()

    def _count(self) -> None:
        self._under_way += 1
        if self._left is not None:
            self._left -= 1

    @asynccontextmanager
    async def trip(self) -> AsyncGenerator[None]:
        """Take one round trip, when it is allowed."""
        if self._left == 0:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            self._look()
            await future
        else:
            self._count()
        try:
            yield
        finally:
            self._under_way -= 1
            self._look()

    def _look(self) -> None:
        if self._left == 0 and not self._under_way and self._waiting:
            self.still.set()


_GATE: Final = contextvars.ContextVar[Gate | None]("gate", default=None)


class Process(Generic[T]):
    """Work that can be stopped at each of its round trips, go on later, or never."""

    def __init__(self, work: Coroutine[Any, Any, T], fault: Fault = Fault.NONE) -> None:
        self._gate = Gate(fault)
        context = contextvars.copy_context()
        context.run(_GATE.set, self._gate)
        self._task = asyncio.get_running_loop().create_task(work, context=context)

    async def go(self, trips: int | None) -> bool:
        """Let it go on for so many round trips, or to its end. False: it stands still."""
        self._gate.open(trips)
        still = asyncio.create_task(self._gate.still.wait())
        await asyncio.wait((self._task, still), return_when=asyncio.FIRST_COMPLETED)
        still.cancel()
        if self._task.done():
            self._task.result()
        return self._task.done()

    async def kill(self) -> None:
        """End it where it stands."""
        await end([self._task])


@contextmanager
def gates() -> Generator[None]:
    """Put the gates into the drivers. Whoever is no `Process` does not notice."""
    connect, send = AsyncEngine.connect, RedisPipeline.execute
    execute = cast("Callable[..., Awaitable[object]]", Redis.execute_command)  # pyright: ignore[reportUnknownMemberType] - untyped

    @asynccontextmanager
    async def gated_connect(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
        gate = _GATE.get()
        if gate is None:
            async with connect(engine) as connection:
                yield connection
            return
        async with gate.trip(), connect(engine) as connection:
            yield connection
        if gate.fault is Fault.LEDGER_UNHEARD:
            gate.fault = Fault.NONE
            raise OSError("the answer is lost")

    async def through(call: Callable[[], Awaitable[object]]) -> object:
        gate = _GATE.get()
        if gate is None:
            return await call()
        async with gate.trip():
            answer = None if gate.fault is Fault.AWAY else await call()
        if gate.fault in (Fault.AWAY, Fault.UNHEARD):
            raise RedisGone(gate.fault.value)
        return answer

    async def gated_execute(redis: Redis, *args: object, **options: object) -> object:
        return await through(lambda: execute(redis, *args, **options))

    async def gated_send(pipeline: RedisPipeline, **options: bool) -> object:
        return await through(lambda: send(pipeline, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncEngine, "connect", gated_connect)
        patch.setattr(Redis, "execute_command", gated_execute)
        patch.setattr(RedisPipeline, "execute", gated_send)
        yield
