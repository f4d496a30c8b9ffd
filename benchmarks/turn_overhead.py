"""How long a visitor waits for the first visible content when the model takes no time, and where that time goes.

300 turns at 25/s through every process of an installation, each the first of its conversation: POST to the gateway,
then the turn's events until the first frame with content. The model's own first bytes are taken off. Beside it, in
the same rounds, the raw hops on the same servers: Kafka send to receive, a stock Celery worker (solo) from
`apply_async` to the start of its task, PUBLISH to its arrival; and as a line of its own what a committed write to
PostgreSQL takes, of which a turn needs five before anything may be shown.

On the in-memory broker a fetch waits for at most 5 ms (`FAIRLEAD_KAFKA_FETCH_MAX_WAIT_MS`), because that broker does
not wake it when a record arrives. `python -m benchmarks.turn_overhead [--broker apache]` prints one JSON line.
"""

import argparse
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from itertools import pairwise
from statistics import median
from typing import Final

import uvloop
from sqlalchemy import text

from benchmarks.harness import FETCH_MS, Round, Rounds, in_turn, medians, percentile, servers, show, told
from benchmarks.hops import Once, celery_hop, commit_hop, kafka_hop, median_ms, model_hop, publish_hop
from benchmarks.visitor import Seen, visitor, whole_system
from cli.system import RunningSystem
from infra.embedded.servers import Broker, Endpoints
from infra.postgres.engine import create_engine
from infra.postgres.statements import rows
from schemas.ids import TurnId

TURNS: Final = 300
PER_SECOND: Final = 25.0
ROUNDS: Final = 3
HOPS: Final = 60
WRITES: Final = 5
"""Committed before the first content: recorded, preparing, queued, running, streaming."""

_STAGES: Final = ("received", "preparing", "queued", "running", "streaming")
_EVENTS: Final = text("""
SELECT turn_id::text, to_state, extract(epoch FROM at)::float AS at
FROM turn_events WHERE turn_id = ANY(CAST(:turns AS uuid[]))
""")


def run(
    *,
    turns: int = TURNS,
    per_second: float = PER_SECOND,
    rounds: int = ROUNDS,
    hops: int = HOPS,
    broker: Broker = "memory",
    given: Endpoints | None = None,
    system: RunningSystem | None = None,
) -> dict[str, object]:
    """Measure, on a system of its own unless one is given; every time is in milliseconds."""

    def measure() -> dict[str, object]:
        with servers(given, broker=broker, kafka=broker == "apache") as places:
            own = nullcontext(system) if system is not None else whole_system(places, broker)
            with own as running:
                return uvloop.run(_measure(places, running, broker, (turns, per_second, rounds, hops)))

    return told("turn_overhead", measure)


def main() -> None:
    """Print the figures as one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", choices=("memory", "apache"), default="memory")
    show(run(broker=parser.parse_args().broker))


async def _measure(
    places: Endpoints, system: RunningSystem, broker: Broker, size: tuple[int, float, int, int]
) -> dict[str, object]:
    turns, per_second, rounds, hops = size
    seen: list[Seen] = []
    async with AsyncExitStack() as stack:
        guest = await stack.enter_async_context(visitor(system))
        hopping = await stack.enter_async_context(_Hops.on(places, system, broker))

        async def ours() -> Round:
            fresh = await guest.paced(max(1, turns // rounds), per_second)
            seen.extend(fresh)
            return _waits(fresh)

        samples = await in_turn({"turn": ours, "hops": lambda: hopping.round(hops)}, rounds=rounds, warm=False)
    stages = await _stages(places.database, seen)
    return _figures(samples, seen, stages, broker)


class _Hops:
    """Every raw hop, ready to be made."""

    def __init__(self) -> None:
        self._hops: dict[str, Once] = {}

    @classmethod
    @asynccontextmanager
    async def on(cls, places: Endpoints, system: RunningSystem, broker: Broker) -> AsyncGenerator["_Hops"]:
        """Open what the hops need, on the servers of the system."""
        simulated = system.endpoints.simulators
        made = cls()
        async with AsyncExitStack() as stack:
            opened = {
                "kafka": kafka_hop(system.endpoints.kafka, broker),
                "celery": celery_hop(places.redis),
                "publish": publish_hop(places.redis),
                "model": model_hop("tgi", simulated.tgi if simulated else ""),
                "commit": commit_hop(places),
            }
            for name, hop in opened.items():
                made._hops[name] = await stack.enter_async_context(hop)
            yield made

    async def round(self, count: int) -> Round:
        """Return the median of each hop in milliseconds."""
        return {name: await median_ms(once, count) for name, once in self._hops.items()}


def _waits(seen: Sequence[Seen]) -> Round:
    visible = [turn.visible * 1e3 for turn in seen]
    return {
        "accepted_p50": percentile([turn.accepted * 1e3 for turn in seen], 0.5),
        "visible_p50": percentile(visible, 0.5),
        "visible_p99": percentile(visible, 0.99),
        "ended_p50": percentile([turn.ended * 1e3 for turn in seen], 0.5),
    }


async def _stages(database: str, seen: Sequence[Seen]) -> dict[str, float]:
    """Return the median milliseconds between the transitions in the ledger, by the database's clock."""
    engine = create_engine(database, pool_size=1, name="fairlead-bench")
    found = await rows(engine, _EVENTS, {"turns": [turn.turn_id for turn in seen]})
    await engine.dispose()
    reached: dict[TurnId, dict[str, float]] = {}
    for event in found:
        reached.setdefault(TurnId(event["turn_id"]), {})[event["to_state"]] = event["at"]
    taken: dict[str, list[float]] = {}
    for turn in seen:
        moments = [("sent", turn.sent), *((stage, reached[turn.turn_id][stage]) for stage in _STAGES)]
        moments.append(("visible", turn.sent + turn.visible))
        for (before, start), (after, end) in pairwise(moments):
            taken.setdefault(f"{before} to {after}", []).append((end - start) * 1e3)
    return {stage: round(median(times), 2) for stage, times in taken.items()}


def _figures(samples: Rounds, seen: Sequence[Seen], stages: dict[str, float], broker: Broker) -> dict[str, object]:
    pairs = list(zip(samples["turn"], samples["hops"], strict=True))
    raw = [hops["kafka"] + hops["celery"] + hops["publish"] for _, hops in pairs]
    ours = [turn["visible_p50"] - hops["model"] for turn, hops in pairs]
    ledger = [hops["commit"] * WRITES for _, hops in pairs]
    to_raw = median(one / other for one, other in zip(ours, raw, strict=True))
    to_all = median(one / (other + more) for one, other, more in zip(ours, raw, ledger, strict=True))
    all_seen = [turn.visible * 1e3 for turn in seen]
    return {
        "broker": broker,
        "fetch_max_wait_ms": FETCH_MS if broker == "memory" else 500,
        "turns": len(seen),
        "medians": medians(samples),
        "stages_ms": stages,
        "summary": {
            "first content less model, p50 ms": round(median(ours), 2),
            "first content, p99 ms": round(percentile(all_seen, 0.99), 2),
            "p99 / p50": round(percentile(all_seen, 0.99) / percentile(all_seen, 0.5), 2),
            "raw hops (Kafka, Celery, PUBLISH), p50 ms": round(median(raw), 2),
            f"{WRITES} commits to PostgreSQL, p50 ms": round(median(ledger), 2),
            "first content / raw hops": round(to_raw, 2),
            "first content / raw hops and commits": round(to_all, 2),
        },
        "targets": {"first content / raw hops": "<= 1.25", "p99 / p50": "<= 3"},
    }


if __name__ == "__main__":
    main()
