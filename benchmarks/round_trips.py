"""What one turn costs in round trips: to PostgreSQL by process, to Redis by command, and in records of Kafka.

A hundred plain discovery turns through every process of an installation. PostgreSQL is counted by a relay in front of
it, Redis by its own `INFO commandstats` (which counts what a script calls as well), Kafka by the ends of its topics.
What the same system asks in the same time when nobody speaks to it is taken off. `python -m benchmarks.round_trips`
prints one JSON line.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from benchmarks.harness import servers, show, told
from benchmarks.proxy import CountingProxy
from benchmarks.visitor import visitor, whole_system
from cli.system import RunningSystem
from infra.embedded.servers import Endpoints
from infra.embedded.topics import PARTITIONS

TURNS: Final = 100
PER_SECOND: Final = 20.0
SETTLE_SECONDS: Final = 3.0
"""Upkeep publishes results once a second."""

WITHIN_SCRIPTS: Final = frozenset({"hget", "hset", "hsetnx", "hmget", "rpush", "lrange", "expire", "del"})
"""What only the frame log's script calls in a plain turn, beside its own PUBLISH; none of them is a round trip."""

Counts: TypeAlias = "Counter[str]"


Counted: TypeAlias = tuple[CountingProxy, RunningSystem]
"""A system and the relay between it and PostgreSQL."""


def run(
    *,
    turns: int = TURNS,
    per_second: float = PER_SECOND,
    settle_seconds: float = SETTLE_SECONDS,
    given: Endpoints | None = None,
    counted: Counted | None = None,
) -> dict[str, object]:
    """Count, on a system of its own unless one is given; every figure is per turn."""

    def measure() -> dict[str, object]:
        with servers(given, kafka=False) as places:
            own = nullcontext(counted) if counted is not None else _counted(places)
            with own as (proxy, system):
                counters = Counters(system.endpoints.kafka, places.redis, proxy)
                return uvloop.run(_measure(counters, system, (turns, per_second, settle_seconds)))

    return told("round_trips", measure)


@contextmanager
def _counted(places: Endpoints) -> Generator[Counted]:
    with (
        CountingProxy(places.database).running() as proxy,
        whole_system(places, "memory", database=proxy.database) as system,
    ):
        yield proxy, system


def main() -> None:
    """Print the figures as one JSON line."""
    show(run())


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything that counts."""

    kafka: str
    redis: str
    proxy: CountingProxy

    async def read(self) -> Counts:
        """Return all counts so far, by a name that says of what."""
        found: Counts = Counter()
        for (name, what), count in self.proxy.counts.items():
            found[f"postgres {name.removeprefix('fairlead-')}: {what}"] += count
        async with Redis.from_url(self.redis, decode_responses=True) as redis:
            stats: dict[str, dict[str, Any]] = await redis.info("commandstats")
        for command, stat in stats.items():
            found[f"redis {command.removeprefix('cmdstat_')}"] += int(stat["calls"])
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


async def _measure(counters: Counters, system: RunningSystem, size: tuple[int, float, float]) -> dict[str, object]:
    turns, per_second, settle_seconds = size
    async with visitor(system) as guest:
        await asyncio.sleep(settle_seconds)
        before, started = await counters.read(), time.perf_counter()
        await guest.paced(turns, per_second)
        await asyncio.sleep(settle_seconds)
        after, busy = await counters.read(), time.perf_counter() - started
        await asyncio.sleep(busy)
        idle = await counters.read()
    per_turn: dict[str, float] = {}
    for name in sorted(after):
        spent = (after[name] - before[name]) - (idle[name] - after[name])
        if round(spent / turns, 2) > 0:
            per_turn[name] = round(spent / turns, 2)
    return {"turns": turns, "per_turn": per_turn, "summary": _summary(per_turn)}


def _summary(per_turn: dict[str, float]) -> dict[str, float]:
    return {
        "PostgreSQL round trips": _sum(per_turn, "postgres ", "round trips"),
        "PostgreSQL statements": _sum(per_turn, "postgres ", "statements"),
        "Redis scripts": per_turn.get("redis evalsha", 0.0),
        "Kafka records": _sum(per_turn, "kafka ", ""),
    }


def _sum(per_turn: dict[str, float], beginning: str, end: str) -> float:
    return round(sum(n for name, n in per_turn.items() if name.startswith(beginning) and name.endswith(end)), 2)


if __name__ == "__main__":
    main()
