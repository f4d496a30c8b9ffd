"""What one turn costs in round trips: to PostgreSQL statement by statement, to Redis by command, in records of Kafka.

A hundred discovery turns of each kind through every process of an installation: answered by the primary; fallen back
(the primary refuses); rescued (their worker is killed while all of them wait for the primary). PostgreSQL is counted by
a relay in front of it, Redis by MONITOR, Kafka by the ends of its topics. What the same system asks in the same time
when nobody speaks to it is taken off. `python -m benchmarks.round_trips` prints one JSON line; `--table` a table with a
row for each stage.
"""

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import aiohttp
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.commands import known_statements, redis_commands
from benchmarks.harness import servers, show, told, until
from benchmarks.proxy import CountingProxy
from benchmarks.visitor import Visitor, visitor, whole_system
from cli.processes import AGENTS_DISCOVERY
from cli.system import RunningSystem
from infra.embedded.servers import Endpoints
from infra.embedded.topics import PARTITIONS
from infra.postgres.engine import create_engine
from infra.postgres.statements import rows

TURNS: Final = 100
PER_SECOND: Final = 20.0
SETTLE_SECONDS: Final = 3.0
"""Upkeep publishes results once a second."""

KINDS: Final = ("answered", "fell back", "rescued")
AT_ONCE: Final = {"fault": "slow", "first_token_ms": 0, "inter_token_ms": 0}
LEAST: Final = 0.02
"""Of a turn: what is seen less often is the system's, not the turn's."""

Counts: TypeAlias = "Counter[str]"

Counted: TypeAlias = tuple[CountingProxy, RunningSystem]
"""A system and the relay between it and PostgreSQL."""

_RUNNING = text("SELECT count(*)::int AS n FROM turns WHERE state = 'running' AND done_at IS NULL")
_ASK_ALWAYS = text("""
INSERT INTO breakers (lane, forced, changed_by) VALUES ('agent.discovery', 'closed', 'bench')
ON CONFLICT (lane) DO UPDATE SET forced = 'closed'
""")


def run(
    *,
    turns: int = TURNS,
    per_second: float = PER_SECOND,
    settle_seconds: float = SETTLE_SECONDS,
    kinds: Sequence[str] = KINDS,
    given: Endpoints | None = None,
    counted: Counted | None = None,
) -> dict[str, object]:
    """Count, on a system of its own unless one is given; every figure is per turn."""

    def measure() -> dict[str, object]:
        with servers(given, kafka=False) as places:
            own = nullcontext(counted) if counted is not None else _counted(places)
            with own as (proxy, system):
                found = uvloop.run(_measure(places, (proxy, system), kinds, (turns, per_second, settle_seconds)))
        return {"turns": turns, "per_turn": found, "summary": _summary(found)}

    return told("round_trips", measure)


@contextmanager
def _counted(places: Endpoints) -> Generator[Counted]:
    with (
        CountingProxy(places.database, known=known_statements()).running() as proxy,
        whole_system(places, "memory", database=proxy.database) as system,
    ):
        yield proxy, system


def main() -> None:
    """Print the figures as one JSON line, or as a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", action="store_true", help="a row for each stage instead of one JSON line")
    if not parser.parse_args().table:
        show(run())
        return
    found: Any = run()["per_turn"]
    Console().print(table(found))


def table(found: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a row for each stage and a column for each kind of turn."""
    shown = Table("per turn", *found)
    for stage in dict.fromkeys(stage for per_turn in found.values() for stage in per_turn):
        shown.add_row(stage, *(f"{per_turn[stage]:.2f}" if stage in per_turn else "" for per_turn in found.values()))
    return shown


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything that counts."""

    kafka: str
    redis: Counts
    proxy: CountingProxy

    async def read(self) -> Counts:
        """Return all counts so far, by a name that says of what."""
        found: Counts = Counter()
        for (name, what), count in self.proxy.counts.items():
            found[f"postgres {name.removeprefix('fairlead-')}: {what}"] += count
        for command, count in self.redis.items():
            found[f"redis {command}"] += count
        for topic, end in (await self._ends()).items():
            found[f"kafka {topic}"] += end
        return found

    async def _ends(self) -> dict[str, int]:
        partitions = [TopicPartition(topic, n) for topic, count in PARTITIONS.items() for n in range(count)]
        consumer: Any = AIOKafkaConsumer(bootstrap_servers=self.kafka)
        await consumer.start()
        try:
            ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        finally:
            await consumer.stop()
        found: Counter[str] = Counter()
        for partition, end in ends.items():
            found[partition.topic] += end
        return found


@dataclass(frozen=True, slots=True)
class Course:
    """Makes turns go the way of their kind."""

    system: RunningSystem
    guest: Visitor
    engine: AsyncEngine
    primary: str
    """Base URL of the simulator of the discovery model."""

    async def answered(self, turns: int, per_second: float) -> None:
        """The primary answers."""
        await self.guest.paced(turns, per_second)

    async def fell_back(self, turns: int, per_second: float) -> None:
        """The primary refuses, and is asked again by every turn all the same."""
        await rows(self.engine, _ASK_ALWAYS, {})
        await self._tell({"fault": "status", "status": 503})
        await self.guest.paced(turns, per_second)
        await self._tell(AT_ONCE)

    async def rescued(self, turns: int, per_second: float) -> None:
        """The primary says nothing, and the worker dies before its patience ends."""
        await rows(self.engine, _ASK_ALWAYS, {})
        await self._tell({"fault": "hang"})
        sent = asyncio.create_task(self.guest.paced(turns, per_second), name="to-be-rescued")

        async def all_run() -> bool:
            return (await rows(self.engine, _RUNNING, {}))[0]["n"] == turns

        await until(all_run)
        self.system.kill(AGENTS_DISCOVERY)
        await self._tell(AT_ONCE)
        await sent

    async def _tell(self, fault: Mapping[str, object]) -> None:
        async with aiohttp.ClientSession() as session, session.put(f"{self.primary}/_control", json=fault) as response:
            response.raise_for_status()


async def _measure(
    places: Endpoints, counted: Counted, kinds: Sequence[str], size: tuple[int, float, float]
) -> dict[str, dict[str, float]]:
    proxy, system = counted
    turns, per_second, settle_seconds = size
    simulators = system.endpoints.simulators
    engine = create_engine(places.database, pool_size=1, name="fairlead-bench")
    found: dict[str, dict[str, float]] = {}
    try:
        async with redis_commands(places.redis) as heard, visitor(system) as guest:
            counters = Counters(system.endpoints.kafka, heard, proxy)
            course = Course(system, guest, engine, simulators.tgi if simulators else "")
            ways: dict[str, Callable[[int, float], Awaitable[None]]] = {
                "answered": course.answered,
                "fell back": course.fell_back,
                "rescued": course.rescued,
            }
            for kind in kinds:
                await asyncio.sleep(settle_seconds)
                found[kind] = await _counts(counters, ways[kind], (turns, per_second, settle_seconds))
    finally:
        await engine.dispose()
    return found


async def _counts(
    counters: Counters, way: Callable[[int, float], Awaitable[None]], size: tuple[int, float, float]
) -> dict[str, float]:
    """Let turns go their way; returns what each asked, an idle system's share taken off."""
    turns, per_second, settle_seconds = size
    before, started = await counters.read(), time.perf_counter()
    await way(turns, per_second)
    await asyncio.sleep(settle_seconds)
    after, busy = await counters.read(), time.perf_counter() - started
    await asyncio.sleep(busy)
    idle = await counters.read()
    spent = {name: ((after[name] - before[name]) - (idle[name] - after[name])) / turns for name in sorted(after)}
    return {name: round(share, 2) for name, share in spent.items() if share >= LEAST}


def _summary(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    summary: dict[str, float] = {}
    for kind, per_turn in found.items():
        summary[f"{kind}: PostgreSQL round trips"] = _sum(per_turn, "postgres ", "round trips")
        summary[f"{kind}: PostgreSQL statements"] = _sum(per_turn, "postgres ", "statements")
        summary[f"{kind}: Redis scripts"] = _sum(per_turn, "redis script", "") - per_turn.get(
            "redis script of Celery", 0.0
        )
        summary[f"{kind}: Kafka records"] = _sum(per_turn, "kafka ", "")
    return summary


def _sum(per_turn: Mapping[str, float], beginning: str, end: str) -> float:
    return round(sum(n for name, n in per_turn.items() if name.startswith(beginning) and name.endswith(end)), 2)


if __name__ == "__main__":
    main()
