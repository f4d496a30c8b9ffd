"""How fast turns leave the ledger while 1,000, 10,000 or 100,000 are queued in it, and how many bytes each takes.

Each backlog has a database of its own on one server. In every round each is drained of 500 turns by the product's own
statements, claim, first visible content and settle, eight turns at once, no model between them. Upkeep's sweeps run
beside it, for they are what walks past the others. Then it is filled up again. Deadlines are put off, so that a turn
may wait. Bytes are those of all tables with their indexes, just filled and vacuumed, and what Redis takes for hints.
`python -m benchmarks.growth` prints one JSON line; `--whole` then drains the largest to its end.
"""

import argparse
import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import structlog
import uvloop
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.harness import (
    Round,
    Rounds,
    Way,
    administer,
    dropped,
    in_turn,
    medians,
    migrated,
    ratio,
    servers,
    show,
    told,
)
from benchmarks.ledger import Ledger, open_ledger
from benchmarks.models import MESSAGE
from infra.celery.dispatch import Dispatcher, Hint
from infra.embedded.servers import Endpoints
from infra.policy import load_policy
from infra.postgres.claims import Claim, Claims
from infra.postgres.engine import create_engine
from infra.postgres.outbox import Outbox
from infra.postgres.settlement import Settlement, settle
from infra.postgres.statements import rows
from infra.postgres.sweeps import Sweeps
from infra.processes import end
from infra.redis.client import create_redis
from infra.redis.frame_log import FrameLog
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import CELERY_PREFIX
from schemas.policy import Deadlines
from schemas.turns import TurnState
from workers.agents.artefact import prompt_versions
from workers.answers.abandoned import AbandonedSettler
from workers.upkeep.sweep import Sweeper

SIZES: Final = (1_000, 10_000, 100_000)
DRAINED: Final = 500
ROUNDS: Final = 5
AT_ONCE: Final = 8
SWEEP_SECONDS: Final = 1.0
"""As upkeep does."""

FILLED_AT_ONCE: Final = 500
ANSWER: Final = "<p>" + "An answer of usual length, of which there is more to say. " * 8 + "</p>"
CUTS: Final = tuple(len(ANSWER) // 20 for _ in range(20))

_ACTOR: Final = "agents@bench"
_FAR: Final = 86_400.0
_BYTES = text("SELECT sum(pg_total_relation_size(relid))::bigint AS n FROM pg_stat_user_tables")


def run(
    *,
    sizes: Sequence[int] = SIZES,
    drained: int = DRAINED,
    rounds: int = ROUNDS,
    whole: bool = False,
    given: Endpoints | None = None,
) -> dict[str, object]:
    """Measure; rates are turns a second."""

    def measure() -> dict[str, object]:
        with servers(given, kafka=False) as places:
            return uvloop.run(_measure(places, sizes, (drained, rounds), whole=whole))

    return told("growth", measure)


def main() -> None:
    """Print the figures as one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--whole", action="store_true", help="at the end drain the largest backlog to its last turn")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    show(run(whole=parser.parse_args().whole))


@dataclass(slots=True)
class Backlog:
    """Queued turns in a database of their own."""

    database: str
    engine: AsyncEngine
    ledger: Ledger
    claims: Claims
    sweeper: Sweeper
    waiting: deque[TurnId] = field(default_factory=deque[TurnId])

    async def fill(self, size: int) -> None:
        """Queue turns until so many are, and leave the tables as autovacuum does within a minute."""
        while (lacking := size - len(self.waiting)) > 0:
            self.waiting.extend(await self.ledger.queued(min(lacking, FILLED_AT_ONCE), MESSAGE))
        outbox, published = Outbox(self.engine), 1
        while published:
            async with outbox.batch(1_000) as (records, mark):
                await mark(records)
                published = len(records)
        await administer(self.database, "VACUUM (ANALYZE)")
        await administer(self.database, "CHECKPOINT")

    async def drain(self, count: int) -> Round:
        """Answer the oldest turns, beside the sweeps."""
        left = iter([self.waiting.popleft() for _ in range(count)])
        swept: list[float] = []
        sweeping = asyncio.create_task(self._sweep_for_ever(swept), name="sweeps")
        started = time.perf_counter()
        await asyncio.gather(*(self._work(left) for _ in range(AT_ONCE)))
        took = time.perf_counter() - started
        await end([sweeping])
        return {"per_s": count / took, "sweep_ms": 1e3 * median(swept) if swept else 0.0}

    async def _work(self, left: Iterator[TurnId]) -> None:
        for turn_id in left:
            claim = await self.claims.claim(turn_id)
            if claim is None or not await self.claims.latch_visible(claim, claim.ordinal):
                raise RuntimeError(
                    f"Turn {turn_id} was not there to be taken; does something else drain this database?"
                )
            await settle(self.engine, _answered(claim), actor=_ACTOR)

    async def _sweep_for_ever(self, swept: list[float]) -> None:
        while True:
            started = time.perf_counter()
            await self.sweeper.run_once()
            swept.append(time.perf_counter() - started)
            await asyncio.sleep(SWEEP_SECONDS)

    async def bytes(self) -> int:
        """Return what all tables and their indexes take."""
        [found] = await rows(self.engine, _BYTES, {})
        return int(found["n"])


def _answered(claim: Claim) -> Settlement:
    return Settlement(
        turn_id=claim.turn_id,
        tenant=claim.tenant,
        conversation_id=claim.conversation_id,
        seq=claim.seq,
        channel=claim.channel,
        agent=claim.agent,
        epoch=claim.epoch,
        from_states=(TurnState.STREAMING,),
        state=TurnState.ANSWERED,
        content=ANSWER,
        text=ANSWER,
        cuts=CUTS,
        source="primary",
        ordinal=claim.ordinal,
        attempt_state="succeeded",
    )


@asynccontextmanager
async def _backlog(places: Endpoints, redis: Redis, size: int) -> AsyncGenerator[Backlog]:
    """Give an empty backlog; its database goes with it."""
    name = f"bench_growth_{size}_{os.getpid()}"
    database = await migrated(places.database, name)
    policy = load_policy()
    policy = policy.model_copy(update={"deadlines": _put_off(policy.deadlines)})
    deadlines = policy.deadlines
    engine = create_engine(database, pool_size=AT_ONCE, name="fairlead-bench")
    upkeep = create_engine(database, pool_size=4, name="fairlead-bench-upkeep")
    frames = FrameLog(redis)
    actor = "upkeep@bench"
    sweeper = Sweeper(
        sweeps=Sweeps(upkeep, deadlines=deadlines, rescues=policy.rescues, actor=actor),
        frames=frames,
        redis=redis,
        dispatcher=Dispatcher(redis),
        settler=AbandonedSettler(engine=upkeep, frames=frames, redis=redis, actor=actor, policy=policy),
        lease=deadlines.lease,
    )
    claims = Claims(
        engine, deadlines=deadlines, owner=_ACTOR, history=10, policy_version=policy.version, prompts=prompt_versions()
    )
    try:
        async with open_ledger(database, deadlines=deadlines) as ledger:
            yield Backlog(database, engine, ledger, claims, sweeper)
    finally:
        await upkeep.dispose()
        await engine.dispose()
        await dropped(places.database, name)


def _put_off(deadlines: Deadlines) -> Deadlines:
    return deadlines.model_copy(update={"queue": _FAR, "turn": _FAR, "waiting": _FAR, "lease": _FAR})


async def _measure(
    places: Endpoints, sizes: Sequence[int], effort: tuple[int, int], *, whole: bool
) -> dict[str, object]:
    drained, rounds = effort
    redis = create_redis(places.redis)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        backlogs = {size: await stack.enter_async_context(_backlog(places, redis, size)) for size in sizes}
        taken = {size: await _filled(backlog, redis, size) for size, backlog in backlogs.items()}

        def way(size: int) -> Way:
            async def once() -> Round:
                await backlogs[size].fill(size)
                return await backlogs[size].drain(drained)

            return once

        samples = await in_turn({str(size): way(size) for size in sizes}, rounds=rounds)
        largest = backlogs[max(sizes)]
        to_its_end = await _whole(largest) if whole else {}
    return _figures(samples, taken, sizes) | to_its_end


async def _filled(backlog: Backlog, redis: Redis, size: int) -> Round:
    """Fill a backlog; returns what each of its turns takes in bytes."""
    empty = await backlog.bytes()
    await backlog.fill(size)
    found = {"postgresql": (await backlog.bytes() - empty) / size}
    before = await _used(redis)
    turns = list(backlog.waiting)
    for at in range(0, size, FILLED_AT_ONCE):
        await Dispatcher(redis).send([Hint(turn, Lane.DISCOVERY) for turn in turns[at : at + FILLED_AT_ONCE]])
    found["redis"] = (await _used(redis) - before) / size
    await redis.delete(CELERY_PREFIX + Lane.DISCOVERY.value)
    return found


async def _used(redis: Redis) -> int:
    found: dict[str, Any] = await redis.info("memory")
    return int(found["used_memory"])


async def _whole(backlog: Backlog) -> dict[str, object]:
    """Drain a backlog to its end, a tenth at a time, and leave vacuuming to autovacuum."""
    tenth = len(backlog.waiting) // 10
    paces = [(await backlog.drain(tenth))["per_s"] for _ in range(10)]
    return {"whole": {"per_s_by_tenth": [round(pace) for pace in paces], "last / first tenth": paces[-1] / paces[0]}}


def _figures(samples: Rounds, taken: Mapping[int, Round], sizes: Sequence[int]) -> dict[str, object]:
    found, least, most = medians(samples), min(sizes), max(sizes)
    summary: dict[str, float] = {}
    for size in sizes:
        summary[f"{size:,} queued, turns/s"] = found[str(size)]["per_s"]
        summary[f"{size:,} queued, one sweep, ms"] = found[str(size)]["sweep_ms"]
        summary[f"{size:,} queued, PostgreSQL bytes a turn"] = taken[size]["postgresql"]
        summary[f"{size:,} queued, Redis bytes a turn"] = taken[size]["redis"]
    pace = f"turns/s, {most:,} / {least:,} queued"
    summary[pace] = ratio(samples, str(most), str(least), "per_s")
    summary[f"bytes a turn, {most:,} / {least:,} queued"] = taken[most]["postgresql"] / taken[least]["postgresql"]
    return {"medians": found, "summary": summary, "targets": {pace: ">= 0.95"}}


if __name__ == "__main__":
    main()
