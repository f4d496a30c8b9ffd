"""Whoever injects the faults: several at once, but for those that would make two faults of one."""

import asyncio
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from aiokafka.errors import KafkaError

from cli.http import HttpFailed
from cli.processes import ORCHESTRATOR
from cli.simulated import set_fault
from cli.system import RunningSystem
from tests.chaos import messages
from tests.chaos.faults import MODEL_FAULTS, Fault, Injected, name_of
from tests.chaos.links import Ailment
from tests.chaos.servers import KAFKA, REDIS, Servers

HANDS: Final = 3
"""Faults at a time."""

_KILL_SECONDS: Final = 2.0
"""How long a kill counts as being in force: a process is up again about then."""


class ModelTrouble:
    """The simulated models' own faults."""

    def __init__(self, system: RunningSystem, *, seed: int) -> None:
        simulated = system.endpoints.simulators
        assert simulated is not None
        self._bases = (simulated.tgi, simulated.openai)
        self._random = random.Random(seed)

    async def disturb(self, share: float) -> None:
        """Let the next call fail, each in its own way, so often of each quarter of a second, until cancelled."""
        while True:
            await asyncio.sleep(self._random.uniform(0.1, 0.4))
            if self._random.random() < share:
                await asyncio.to_thread(self._disturb, self._random.choice(self._bases))

    def calm(self) -> None:
        """Let no further call fail."""
        for base in self._bases:
            set_fault(base, "none")

    def _disturb(self, base: str) -> None:
        fault = self._random.choice(MODEL_FAULTS)
        details: dict[str, float] = {"times": 1, "after_tokens": self._random.choice((0, self._random.randrange(80)))}
        if fault == "status":
            details["status"] = self._random.choice((424, 429, 500, 503))
        with suppress(HttpFailed):
            set_fault(base, fault, **details)


class Saboteur:
    """Breaks a running system. What it froze, filled or made ill is well again afterwards, whatever happens.

    Args:
        system: whose processes are killed and frozen.
        servers: what they depend on.
        seed: of every choice.
        lease: seconds; a freeze lasts longer.
        environ: of a second orchestrator.
        turns: gives the turns that were accepted so far.
    """

    def __init__(
        self,
        system: RunningSystem,
        servers: Servers,
        *,
        seed: int,
        lease: float,
        environ: dict[str, str],
        turns: Callable[[], Sequence[str]],
    ) -> None:
        self.injected: list[Injected] = []
        self.failed: list[str] = []
        """Faults that could not be injected, and why."""
        self._system = system
        self._servers = servers
        self._lease = lease
        self._environ = environ
        self._turns = turns
        self._random = random.Random(seed)
        self._hands = [asyncio.Lock() for _ in range(HANDS)]
        self._used: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def work(self, faults: Sequence[Fault]) -> None:
        """Inject all of these, then return."""
        waiting = list(reversed(faults))
        async with asyncio.TaskGroup() as group:
            for hand in self._hands:
                group.create_task(self._work(hand, waiting))

    async def _work(self, hand: asyncio.Lock, waiting: list[Fault]) -> None:
        while waiting:
            fault = waiting.pop()
            if _stands_alone(fault):
                async with self._all_hands():
                    await self._inject(fault)
            else:
                async with hand:
                    await self._inject(fault)
            await asyncio.sleep(self._random.uniform(0.2, 1.2))

    @asynccontextmanager
    async def _all_hands(self) -> AsyncGenerator[None]:
        """Wait until nothing else is in force and its owners are replaced, and let nothing begin meanwhile."""
        async with AsyncExitStack() as stack:
            for hand in self._hands:
                await stack.enter_async_context(hand)
            await asyncio.sleep(self._lease + 2.0)
            yield
            await asyncio.sleep(self._lease + 2.0)

    async def _inject(self, fault: Fault) -> None:
        async with self._used[fault[1]]:
            at = time.time()
            try:
                lasted = await self._do(fault)
            except (KafkaError, OSError, TimeoutError) as error:
                self.failed.append(f"{name_of(fault)}: {type(error).__name__}")
                return
        over = max(time.time(), at + lasted)
        self.injected.append(Injected(name=name_of(fault), at=at, over=over))

    async def _do(self, fault: Fault) -> float:
        """Do it, and undo what can be undone; returns how long its effect lasts at least."""
        match fault:
            case ("kill", name):
                await self._kill(name)
                return _KILL_SECONDS
            case ("freeze", name):
                await self._freeze(name)
            case ("restart", server):
                await self._restart(server)
            case ("fill", server):
                await self._fill(server)
            case ("delay" | "cut" | "half-open" as ailment, server):
                await self._ail(server, ailment)
            case ("resend", _):
                await messages.resend(self._kafka, self._random)
            case ("rehint", _):
                await messages.rehint(self._servers.redis, self._turns(), self._random)
            case ("replay", _):
                await self._replay()
            case ("rebalance", _):
                await self._rebalance()
        return 0.0

    async def _running(self, name: str) -> int:
        """The process's id, once it runs."""
        # Asked once a look: it may fall between two looks.
        while (process := self._system.processes.get(name)) is None:  # noqa: ASYNC110 - the supervisor tells nobody
            await asyncio.sleep(0.1)
        return process

    async def _kill(self, name: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(await self._running(name), signal.SIGKILL)

    async def _freeze(self, name: str) -> None:
        """Stop a process for longer than a lease, then let it go on as if nothing had happened."""
        process = await self._running(name)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
            try:
                await asyncio.sleep(self._lease + self._random.uniform(0.8, 3.0))
            finally:
                os.kill(process, signal.SIGCONT)

    async def _restart(self, server: str) -> None:
        try:
            await asyncio.to_thread(self._servers.kill, server)
            await asyncio.sleep(self._random.uniform(0.1, 2.0))
        finally:
            await asyncio.to_thread(self._servers.restart, server)

    async def _fill(self, server: str) -> None:
        try:
            await asyncio.to_thread(self._servers.fill, server)
            await asyncio.sleep(self._random.uniform(2.0, 4.0))
        finally:
            await asyncio.to_thread(self._servers.free, server)

    async def _ail(self, server: str, ailment: Ailment) -> None:
        link = self._servers.links[server]
        link.fall_ill(ailment)
        try:
            await asyncio.sleep(self._random.uniform(1.0, 4.0))
        finally:
            link.recover()

    async def _replay(self) -> None:
        """Read the whole topic again: the orchestrator is away while its group goes back to the first record."""
        async with self._used[ORCHESTRATOR]:
            await asyncio.to_thread(self._system.stop, ORCHESTRATOR)
            try:
                if not await messages.rewind(self._kafka):
                    raise TimeoutError
            finally:
                self._system.start(ORCHESTRATOR)

    async def _rebalance(self) -> None:
        """Let a second orchestrator share the partitions and go again, in good order or not."""
        other = await messages.second_orchestrator(self._system.endpoints, self._environ)
        try:
            await asyncio.sleep(self._random.uniform(6.0, 12.0))
        finally:
            with suppress(ProcessLookupError):
                other.send_signal(self._random.choice((signal.SIGTERM, signal.SIGKILL)))
            try:
                async with asyncio.timeout(15):
                    await other.wait()
            except TimeoutError:
                other.kill()
                await other.wait()

    @property
    def _kafka(self) -> str:
        server = self._servers.servers.get(KAFKA)
        return server.address if server is not None else self._system.endpoints.kafka


def _stands_alone(fault: Fault) -> bool:
    """Whether nothing else may fail beside it.

    Redis may lose its last second: a worker lost in that second as well would be two faults at once.
    """
    return fault in {("restart", REDIS), ("fill", REDIS)}
