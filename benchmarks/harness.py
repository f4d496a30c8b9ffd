"""What the benches share: the machine's pace, rounds in turn, medians, servers, children.

A machine that others use too gives times that wander. So every bench runs its ways in turn within each round, takes
the median of the rounds' ratios, and tells beside its figures how fast a fixed loop ran before and after.
"""

import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias, cast

import aiohttp
import psutil
from redis.asyncio import Redis
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from infra.embedded.servers import Broker, EmbeddedServers, Endpoints
from infra.postgres.migrate import upgrade_async
from simulators.process import Dialect
from simulators.process import run as run_simulator

STATE: Final = Path(__file__).parents[1] / ".cache" / "bench-state"
"""Where the benches' own servers live; one run at a time."""

NOWHERE: Final = "127.0.0.1:1"
"""The address of what a bench does not need."""

FETCH_MS: Final = 5
"""The longest a fetch waits on the in-memory broker, which wakes none when a record arrives. So does the system."""

Round: TypeAlias = dict[str, float]
Way: TypeAlias = Callable[[], Awaitable[Round]]
Pipe: TypeAlias = "Connection[Any, Any]"
Rounds: TypeAlias = dict[str, list[Round]]

_DATABASE: Final = "bench"
_PATIENCE: Final = 120.0


def calibrate() -> dict[str, float]:
    """Run a fixed loop: the CPU milliseconds it took, and the share of a core it got."""
    wall, cpu = time.perf_counter(), time.process_time()
    total = 0
    for number in range(3_000_000):
        total += number & 7
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_ms": round(cpu * 1e3, 1), "core_share": round(cpu / wall, 2)}


def told(name: str, measure: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Measure, and return the figures between two calibrations."""
    before = calibrate()
    figures = measure()
    return {"benchmark": name, "calibration": {"before": before, "after": calibrate()}, **figures}


def show(figures: Mapping[str, object]) -> None:
    """Print one JSON line."""
    print(json.dumps(figures))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def in_turn(ways: Mapping[str, Way], *, rounds: int, warm: bool = True) -> Rounds:
    """Run every way once in each round, one after the other; a first round that does not count warms them."""
    samples: Rounds = {name: [] for name in ways}
    for number in range(rounds + warm):
        for name, way in ways.items():
            sample = await way()
            if number >= warm:
                samples[name].append(sample)
    return samples


def medians(samples: Rounds) -> dict[str, Round]:
    """Return each way's medians, a figure at a time."""
    return {
        name: {figure: round(median(one[figure] for one in rounds), 3) for figure in rounds[0]}
        for name, rounds in samples.items()
        if rounds
    }


def ratio(samples: Rounds, over: str, under: str, figure: str) -> float:
    """Return the median of the rounds' ratios of one figure between two ways."""
    pairs = zip(samples[over], samples[under], strict=True)
    return round(median(one[figure] / other[figure] for one, other in pairs), 2)


class Ticker:
    """A task that wants to run every millisecond and notes by how many more it was kept waiting."""

    def __init__(self) -> None:
        self._late: list[float] = []

    async def __aenter__(self) -> "Ticker":
        self._task = asyncio.create_task(self._tick(), name="ticker")
        await asyncio.sleep(0.01)
        self._late.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.002)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self._late.append(max(0.0, (time.perf_counter() - began) * 1e3 - 1))

    @property
    def figures(self) -> Round:
        """The longest stall and the 99th percentile, in milliseconds."""
        return {"stall_max_ms": max(self._late, default=0.0), "stall_p99_ms": percentile(self._late, 0.99)}


class Watch:
    """Looks at a process from outside: its CPU, the most memory and threads it had since the watch began.

    Memory is told above what the process had when it was first watched, before it had any work.
    """

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._idle = process.memory_info().rss
        self._most = self._threads = 0

    @asynccontextmanager
    async def during(self) -> AsyncGenerator[Round]:
        """Fill the figures in at the end of the context: `cpu` seconds, `threads`, `rss_kib` above idle."""
        figures: Round = {}
        self._most = self._threads = 0
        looking = asyncio.create_task(self._look(), name="watch")
        before = self._spent()
        try:
            yield figures
        finally:
            figures["cpu"] = self._spent() - before
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            figures["threads"] = self._threads
            figures["rss_kib"] = max(0, self._most - self._idle) / 1024

    def _spent(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    async def _look(self) -> None:
        while True:
            self._most = max(self._most, self._process.memory_info().rss)
            self._threads = max(self._threads, self._process.num_threads())
            await asyncio.sleep(0.05)


@contextmanager
def servers(
    given: Endpoints | None = None, *, broker: Broker = "memory", kafka: bool = True, database: bool = True
) -> Generator[Endpoints]:
    """Give an emptied Redis, a fresh migrated database and a broker, or just what is `given`."""
    if given is not None:
        yield given
        return
    embedded = EmbeddedServers(
        STATE / broker, broker=broker, kafka=None if kafka else NOWHERE, database=None if database else NOWHERE
    )
    with embedded:
        found = embedded.endpoints
        asyncio.run(_emptied(found.redis))
        if database:
            found = Endpoints(kafka=found.kafka, redis=found.redis, database=asyncio.run(migrated(found.database)))
        yield found


async def _emptied(url: str) -> None:
    async with Redis.from_url(url) as redis:
        await redis.flushall()


async def migrated(url: str, name: str = _DATABASE) -> str:
    """Make a fresh database of that name on the server of `url`; returns its address."""
    await dropped(url, name)
    await administer(url, f"CREATE DATABASE {name}")
    fresh = url.rpartition("/")[0] + f"/{name}"
    await upgrade_async(fresh)
    return fresh


async def dropped(url: str, name: str) -> None:
    """Remove a database from the server of `url`, if it is there."""
    await administer(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def administer(url: str, command: str) -> None:
    """Run one command that no transaction may contain and no limit may end."""
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.execute(text(command))
    finally:
        await engine.dispose()


@dataclass(frozen=True, slots=True)
class Child:
    """A process of the bench's own, which answers what it is asked."""

    process: psutil.Process
    _connection: Pipe

    async def ask(self, *question: object) -> Any:
        """Send a question and return the answer.

        Raises:
            EOFError: the child ended instead.
            TimeoutError: it did not answer.
        """
        self._connection.send(question)
        return await self.answer()

    async def answer(self) -> Any:
        """Wait for the next thing the child says."""
        if not await asyncio.to_thread(self._connection.poll, _PATIENCE):
            raise TimeoutError("a child of the bench did not answer")
        return self._connection.recv()


@asynccontextmanager
async def child(work: Callable[..., None], *arguments: object) -> AsyncGenerator[Child]:
    """Run `work(connection, *arguments)` in a fresh process while the context lasts."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Child(psutil.Process(process.pid), cast("Pipe", ours))
    finally:
        process.terminate()
        await asyncio.to_thread(process.join)
        process.close()
        ours.close()


async def asked(connection: Pipe) -> Any:
    """In a child: wait for the next question without holding up its loop."""
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection.fileno(), arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(connection.fileno())
    return connection.recv()


@asynccontextmanager
async def simulator(dialect: Dialect) -> AsyncGenerator[str]:
    """Run a model simulator in a process of its own; gives its base URL."""
    with tempfile.TemporaryDirectory() as place:
        announced = Path(place) / "url"
        async with child(_simulate, dialect, announced):
            await until(announced.exists)
            yield announced.read_text().strip()


def _simulate(_: Pipe, dialect: Dialect, announced: Path) -> None:
    run_simulator(dialect, port_file=announced, first_token_ms=0, inter_token_ms=0)


async def pace(url: str, *, tokens: int, first_token_ms: float, inter_token_ms: float) -> None:
    """Tell a simulator how long its answers are, and how fast."""
    wanted = {
        "fault": "slow",
        "tokens": tokens,
        "first_token_ms": first_token_ms,
        "inter_token_ms": inter_token_ms,
    }
    async with aiohttp.ClientSession() as session, session.put(f"{url}/_control", json=wanted) as response:
        response.raise_for_status()


@asynccontextmanager
async def fairlead(*command: str, environ: Mapping[str, str], log: Path) -> AsyncGenerator[psutil.Process]:
    """Run `fairlead COMMAND…` while the context lasts; its lines go to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        lines = stack.enter_context(log.open("ab"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "cli.main", *command, env=environ, stdout=lines, stderr=lines
        )
        try:
            yield psutil.Process(process.pid)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def until(condition: Callable[[], bool | Awaitable[bool]], *, seconds: float = _PATIENCE) -> None:
    """Wait for a condition to hold.

    Raises:
        TimeoutError: it did not within so many seconds.
    """
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.02)
