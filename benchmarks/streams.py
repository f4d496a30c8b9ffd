"""What hundreds of streams at once cost one agent worker process, beside the barest loop that could do it.

Each stream is a turn whose model says 100 tokens over 2 s; 400 begin in a second. `runtime` is the worker's own runtime
in a child process, told of the turns directly; `door` is `fairlead serve agents`, told through Celery. The limit,
`bare`, is aiohttp and `json` in a child process: each event decoded, the text of each stream published every 40 ms, one
pipeline a flush; it keeps no ledger, checks no markup and settles nothing. The simulator, Redis and PostgreSQL are
processes of their own. CPU is that of the worker process alone. `python -m benchmarks.streams` prints one JSON line;
`--profile` adds where the runtime's CPU goes.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import aiohttp
import psutil
import uvloop
from pydantic import SecretStr

from benchmarks.harness import (
    STATE,
    Child,
    Pipe,
    Round,
    Rounds,
    Watch,
    Way,
    asked,
    child,
    fairlead,
    in_turn,
    medians,
    pace,
    ratio,
    servers,
    show,
    simulator,
    told,
    until,
)
from benchmarks.ledger import Ledger, Stand, open_ledger
from benchmarks.models import HEADERS, MESSAGE, BareRequest, bare_request
from benchmarks.sampling import Sampler
from infra.celery.dispatch import Dispatcher, Hint
from infra.embedded.process import free_port
from infra.embedded.servers import Endpoints
from infra.policy import load_policy
from infra.redis.client import create_redis
from infra.settings import Settings
from infra.telemetry.logs import configure_logs
from schemas.agents import Agent, Lane, lane_of
from schemas.ids import TurnId
from simulators.process import Dialect
from workers.lanes.process import AgentRuntime, agent_runtime

SIZES: Final = (50, 500)
TOKENS: Final = 100
SECONDS: Final = 2.0
ROUNDS: Final = 3
DIALECTS: Final[tuple[Dialect, ...]] = ("tgi", "openai")
FLUSH_SECONDS: Final = 0.04
STARTS_PER_SECOND: Final = 400
QUIET_SECONDS: Final = 5.0
"""A turn that is open for so long after the last ended was left to its lease, and counts as lost here."""

LANE: Final = lane_of(Agent.DISCOVERY)
LOG: Final = STATE / "streams.log"


@dataclass(frozen=True, slots=True)
class Workload:
    """What each stream is."""

    tokens: int
    seconds: float

    async def ask_of(self, model: str) -> None:
        """Have the simulator answer so."""
        gap = self.seconds * 1e3 / self.tokens
        await pace(model, tokens=self.tokens, first_token_ms=gap, inter_token_ms=gap)

    def figures(self, streams: int, answered: int, elapsed: float, watched: Round) -> Round:
        """Return a round's figures, by chunk of a whole answer and by stream."""
        ideal = self.seconds + (streams - 1) / STARTS_PER_SECOND
        return {
            "answered": answered / streams,
            "makespan": elapsed / ideal,
            "cpu_us_per_chunk": watched["cpu"] / (max(1, answered) * self.tokens) * 1e6,
            "threads": watched["threads"],
            "rss_kib_per_stream": watched["rss_kib"] / streams,
        }


@dataclass(slots=True)
class Measured:
    """What one dialect gave."""

    rounds: Rounds
    profile: object


def run(
    *,
    sizes: Sequence[int] = SIZES,
    tokens: int = TOKENS,
    seconds: float = SECONDS,
    rounds: int = ROUNDS,
    dialects: Sequence[Dialect] = DIALECTS,
    door: bool = True,
    profile: bool = False,
    given: Endpoints | None = None,
) -> dict[str, object]:
    """Measure; the keys of `medians` are dialect, streams at once, way. Makespans are in parts of the ideal one."""
    workload = Workload(tokens, seconds)
    samples: Rounds = {}
    profiles: dict[str, object] = {}

    def measure() -> dict[str, object]:
        with servers(given, kafka=False) as places:
            for dialect in dialects:
                measured = uvloop.run(_measure(places, dialect, sizes, workload, rounds, door=door, profile=profile))
                samples.update(measured.rounds)
                profiles[dialect] = measured.profile
        return _figures(samples, workload, rounds) | ({"profile": profiles} if profile else {})

    return told("streams", measure)


def main() -> None:
    """Print the figures as one JSON line."""
    show(run(profile="--profile" in sys.argv))


async def starts(count: int) -> AsyncGenerator[int]:
    """Yield the numbers of streams at the moment they shall begin."""
    loop = asyncio.get_running_loop()
    first = loop.time()
    for number in range(count):
        if (wait := first + number / STARTS_PER_SECOND - loop.time()) > 0:
            await asyncio.sleep(wait)
        yield number


def _figures(samples: Rounds, workload: Workload, rounds: int) -> dict[str, object]:
    summary: dict[str, float] = {}
    targets: dict[str, str] = {}
    for name in samples:
        place, _, way = name.rpartition(" ")
        if way != "bare":
            label = f"{place} {way}: CPU per chunk / bare"
            summary[label] = ratio(samples, name, f"{place} bare", "cpu_us_per_chunk")
            targets[label] = "<= 2"
            answered = min(one["answered"] for one in samples[name])
            if answered < 1:
                summary[f"{place} {way}: fewest answered in a round"] = round(answered, 3)
            summary[f"{place} {way}: makespan / bare"] = ratio(samples, name, f"{place} bare", "makespan")
    return {
        "workload": asdict(workload),
        "rounds": rounds,
        "medians": medians(samples),
        "summary": summary,
        "targets": targets,
    }


async def _measure(
    places: Endpoints,
    dialect: Dialect,
    sizes: Sequence[int],
    workload: Workload,
    rounds: int,
    *,
    door: bool,
    profile: bool,
) -> Measured:
    measured = Measured({}, None)
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(simulator(dialect))
        ledger = await stack.enter_async_context(open_ledger(places.database))
        bare = await stack.enter_async_context(child(_bare, dialect, model, places.redis))
        runtime = await stack.enter_async_context(child(_runtime, dialect, model, places))
        redis = create_redis(places.redis)
        stack.push_async_callback(redis.aclose)
        await asyncio.gather(bare.answer(), runtime.answer())
        watches = [Watch(bare.process), Watch(runtime.process)]
        if door:
            watches.append(Watch(await stack.enter_async_context(_door(dialect, model, places))))
        await workload.ask_of(model)
        for size in sizes:
            ways: dict[str, Way] = {
                f"{dialect} {size} bare": _bare_way(bare, watches[0], size, workload),
                f"{dialect} {size} runtime": _runtime_way(runtime, watches[1], ledger, size, workload),
            }
            if door:
                ways[f"{dialect} {size} door"] = _door_way(Dispatcher(redis), watches[2], ledger, size, workload)
            measured.rounds.update(await in_turn(ways, rounds=rounds))
        if profile:
            _, measured.profile = await runtime.ask(await ledger.queued(sizes[-1], MESSAGE), True)
    return measured


# The limit.


def _bare_way(bare: Child, watch: Watch, size: int, workload: Workload) -> Way:
    async def way() -> Round:
        async with watch.during() as watched:
            elapsed, characters = await bare.ask(size)
        if characters < size * workload.tokens:
            raise RuntimeError("The bare loop did not read whole answers; is the simulator up?")
        return workload.figures(size, size, elapsed, watched)

    return way


def _bare(connection: Pipe, dialect: Dialect, model: str, redis: str) -> None:
    uvloop.run(_serve_bare(connection, BareLoop(bare_request(dialect, model)), redis))


async def _serve_bare(connection: Pipe, bare: "BareLoop", redis: str) -> None:
    connection.send("ready")
    while True:
        (streams,) = await asked(connection)
        started = time.perf_counter()
        characters = await bare.read_all(streams, redis)
        connection.send((time.perf_counter() - started, characters))


class BareLoop:
    """Reads streams, decodes their events and publishes their text; nothing else."""

    def __init__(self, request: BareRequest) -> None:
        self._request = request
        self._pending: dict[str, list[str]] = {}
        self._reading = False

    async def read_all(self, streams: int, redis_url: str) -> int:
        """Read so many streams at once; returns how many characters they had."""
        redis = create_redis(redis_url)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            self._reading = True
            flushing = asyncio.create_task(self._keep_flushing(redis), name="flush")
            channels = (f"bench:{number}" async for number in starts(streams))
            reading = [asyncio.create_task(self._read(session, channel)) async for channel in channels]
            found = await asyncio.gather(*reading)
            self._reading = False
            await flushing
        await redis.aclose()
        return sum(found)

    async def _read(self, session: aiohttp.ClientSession, channel: str) -> int:
        characters, rest = 0, b""
        text_of = self._request.text_of
        async with session.post(self._request.url, data=self._request.body, headers=HEADERS) as response:
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: {") and (text := text_of(json.loads(line[6:]))):
                        characters += len(text)
                        self._pending.setdefault(channel, []).append(text)
        return characters

    async def _keep_flushing(self, redis: Any) -> None:
        while self._reading or self._pending:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush(redis)

    async def _flush(self, redis: Any) -> None:
        taken, self._pending = self._pending, {}
        if taken:
            async with redis.pipeline(transaction=False) as pipe:
                for channel, texts in taken.items():
                    pipe.publish(channel, "".join(texts))
                await pipe.execute()


# The worker's runtime, told of its turns directly.


def _runtime_way(runtime: Child, watch: Watch, ledger: Ledger, size: int, workload: Workload) -> Way:
    async def way() -> Round:
        turns = await ledger.queued(size, MESSAGE)
        async with watch.during() as watched:
            elapsed, _ = await runtime.ask(turns, False)
        return workload.figures(size, (await ledger.stand(turns)).answered, elapsed, watched)

    return way


def _runtime(connection: Pipe, dialect: Dialect, model: str, places: Endpoints) -> None:
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("ab") as lines:
        os.dup2(lines.fileno(), sys.stderr.fileno())
    settings = Settings(
        redis=places.redis,
        database=SecretStr(places.database),
        discovery_base_url=model,
        discovery_dialect=dialect,
        metrics_port=-1,
        log_format="json",
    )
    configure_logs("agents", settings)
    uvloop.run(_serve_runtime(connection, settings))


async def _serve_runtime(connection: Pipe, settings: Settings) -> None:
    async with agent_runtime(settings, load_policy()) as runtime:
        connection.send("ready")
        while True:
            turns, profiled = await asked(connection)
            if profiled:
                with Sampler() as sampler:
                    elapsed = await _carry(runtime, turns)
                connection.send((elapsed, sampler.dearest(60)))
            else:
                connection.send((await _carry(runtime, turns), None))


async def _carry(runtime: AgentRuntime, turns: Sequence[TurnId]) -> float:
    """Start the turns; returns the seconds until the last is over."""
    left, over = len(turns), asyncio.Event()

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            over.set()

    started = time.perf_counter()
    async for number in starts(len(turns)):
        runtime.start(turns[number], LANE, done)
    await over.wait()
    return time.perf_counter() - started


# The whole process, told through Celery.


def _door_way(dispatcher: Dispatcher, watch: Watch, ledger: Ledger, size: int, workload: Workload) -> Way:
    async def way() -> Round:
        turns = await ledger.queued(size, MESSAGE)
        async with watch.during() as watched:
            started = time.time()
            async for number in starts(size):
                await dispatcher.send([Hint(turns[number], LANE)])
            stand = await _over(ledger, turns)
        return workload.figures(size, stand.answered, stand.last - started, watched)

    return way


async def _over(ledger: Ledger, turns: Sequence[TurnId]) -> Stand:
    """Wait until all have ended, or nothing ends any more."""
    while True:
        stand = await ledger.stand(turns)
        if not stand.open or (stand.last and time.time() - stand.last > QUIET_SECONDS):
            return stand
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _door(dialect: Dialect, model: str, places: Endpoints) -> AsyncGenerator[psutil.Process]:
    port = free_port()
    environ = {
        **os.environ,
        "FAIRLEAD_REDIS": places.redis,
        "FAIRLEAD_DATABASE": places.database,
        "FAIRLEAD_DISCOVERY_BASE_URL": model,
        "FAIRLEAD_DISCOVERY_DIALECT": dialect,
        "FAIRLEAD_METRICS_PORT": str(port),
        "FAIRLEAD_LOG_FORMAT": "json",
    }
    lanes = (Lane.DISCOVERY, Lane.FRONTIER_FALLBACK)
    command = ["serve", "agents", *(word for lane in lanes for word in ("--lane", lane.value))]
    async with fairlead(*command, environ=environ, log=LOG) as process:
        await until(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), seconds=60)
        yield process


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


if __name__ == "__main__":
    main()
