"""Kills, freezes and restarts of everything that runs, and the model servers' own faults, from one seed."""

import asyncio
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from cli.http import HttpFailed
from cli.processes import AGENTS, AGENTS_DISCOVERY, GATEWAY, ORCHESTRATOR, UPKEEP
from cli.simulated import Fault, set_fault
from cli.system import RunningSystem
from infra.embedded.apache_kafka import ApacheKafka

Deed = Literal["kill", "freeze", "restart"]

MODEL_FAULTS: Final[tuple[Fault, ...]] = ("status", "event", "cut", "close", "hang", "malformed")

_PROCESSES: Final = (GATEWAY, ORCHESTRATOR, AGENTS, AGENTS_DISCOVERY, UPKEEP)
_KILLS_REMEMBERED: Final = 125.0
_MOST_KILLS: Final = 4
"""Within the time the supervisor remembers falls: it gives up on what falls more than six times."""


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A fault and when it was in force."""

    name: str
    at: float
    over: float


def deck(chance: random.Random, faults: int, *, kafka: bool) -> list[tuple[Deed, str]]:
    """So many faults in a random order; each thirteen (with Kafka fourteen) hold every kind of them."""
    kinds: list[tuple[Deed, str]] = [
        *(("kill", name) for name in (*_PROCESSES, AGENTS_DISCOVERY)),
        *(("freeze", name) for name in _PROCESSES),
        ("restart", "redis"),
        ("restart", "postgres"),
    ]
    if kafka:
        kinds.append(("restart", "kafka"))
    dealt: list[tuple[Deed, str]] = []
    while len(dealt) < faults:
        dealt.extend(chance.sample(kinds, len(kinds)))
    return dealt[:faults]


class Saboteur:
    """Breaks a running system, one thing after another. What it froze goes on again, whatever happens."""

    def __init__(self, system: RunningSystem, *, seed: int, lease: float, kafka: ApacheKafka | None = None) -> None:
        self.injected: list[Injected] = []
        self._system = system
        self._kafka = kafka
        self._lease = lease
        self._random = random.Random(seed)
        self._models = random.Random(seed + 1)
        self._kills: dict[str, list[float]] = defaultdict(list)

    async def work(self, faults: int) -> None:
        """Inject so many faults, then return."""
        for deed, name in deck(self._random, faults, kafka=self._kafka is not None):
            await self._inject(deed, name)
            await asyncio.sleep(self._random.uniform(0.3, 2.0))

    async def disturb_models(self, share: float) -> None:
        """Let about this share of the model calls fail, each in its own way, until cancelled."""
        simulated = self._system.endpoints.simulators
        assert simulated is not None
        while True:
            await asyncio.sleep(self._models.uniform(0.1, 0.4))
            if self._models.random() < share:
                base = self._models.choice((simulated.tgi, simulated.openai))
                await asyncio.to_thread(self._disturb, base)

    def calm_models(self) -> None:
        """Let no further model call fail."""
        simulated = self._system.endpoints.simulators
        assert simulated is not None
        for base in (simulated.tgi, simulated.openai):
            set_fault(base, "none")

    def _disturb(self, base: str) -> None:
        fault = self._models.choice(MODEL_FAULTS)
        details: dict[str, float] = {"times": 1, "after_tokens": self._models.choice((0, self._models.randrange(80)))}
        if fault == "status":
            details["status"] = self._models.choice((424, 429, 500, 503))
        with suppress(HttpFailed):
            set_fault(base, fault, **details)

    async def _inject(self, deed: Deed, name: str) -> None:
        if deed == "restart":
            await self._restart(name)
            return
        while name not in self._system.processes:  # noqa: ASYNC110 - killed a moment ago; the supervisor tells nobody
            await asyncio.sleep(0.1)
        if deed == "kill" and self._may_fall(name):
            await self._noted(f"kill {name}", 2.0, lambda: self._kill(name))
        else:
            await self._freeze(name)

    def _may_fall(self, name: str) -> bool:
        now = time.monotonic()
        self._kills[name] = [at for at in self._kills[name] if now - at < _KILLS_REMEMBERED]
        return len(self._kills[name]) < _MOST_KILLS

    def _kill(self, name: str) -> None:
        self._kills[name].append(time.monotonic())
        self._system.kill(name)

    async def _freeze(self, name: str) -> None:
        """Stop a process for longer than a lease, then let it go on as if nothing had happened."""
        process, at = self._system.processes[name], time.time()
        os.kill(process, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._lease + self._random.uniform(0.8, 3.0))
        finally:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
            self.injected.append(Injected(name=f"freeze {name}", at=at, over=time.time()))

    async def _restart(self, name: str) -> None:
        """Kill a server and start it again a moment later; other faults are over by then, and wait afterwards.

        Redis may lose its last second: a worker lost in that second as well would be two faults at once.
        """
        await asyncio.sleep(self._lease + 2.0)
        at = time.time()
        server = self._kafka if name == "kafka" and self._kafka is not None else None
        await asyncio.to_thread(server.kill if server else lambda: self._system.kill(name))
        await asyncio.sleep(self._random.uniform(0.1, 2.0))
        await asyncio.to_thread(server.restart if server else lambda: self._system.restart(name))
        self.injected.append(Injected(name=f"kill and restart {name}", at=at, over=time.time()))
        await asyncio.sleep(self._lease + 2.0)

    async def _noted(self, name: str, lasts: float, deed: Callable[[], None]) -> None:
        at = time.time()
        deed()
        self.injected.append(Injected(name=name, at=at, over=at + lasts))
        await asyncio.sleep(0)


def names(injected: Sequence[Injected]) -> list[str]:
    """Each kind of fault once, in order of its name."""
    return sorted({fault.name for fault in injected})
