"""Let a process die at each named place under traffic, a few times each, and look for what must never be found.

python -m tests.chaos.crash_points --turns 50 --only after_claim
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Final

from sqlalchemy import text

from cli.processes import AGENTS, AGENTS_DISCOVERY, DEAD_LETTERS, GATEWAY, ORCHESTRATOR, UPKEEP
from cli.simulated import set_fault
from cli.system import RunningSystem
from infra.crash_points import STATUS, VARIABLE, CrashPoint
from infra.postgres.engine import create_engine
from tests.chaos.checker import Kind, Violation, violations
from tests.chaos.evidence import Evidence, gathered
from tests.chaos.report import aligned, keep
from tests.chaos.saboteur import ModelTrouble
from tests.chaos.trial import LOGS, broken_system, scratch, settled, surprises
from tests.chaos.users import Users

USERS: Final = 10
SECONDS: Final = 60.0
"""How long users talk at most at one point; a slow machine then has fewer turns, and the row says so."""

_WORKERS: Final = (AGENTS, AGENTS_DISCOVERY)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a point is come to."""

    processes: tuple[str, ...]
    """Those that shall die there."""
    nth: tuple[int, ...] = (2, 5, 9)
    """The time at which each start of such a process dies."""
    hit: tuple[str, ...] = ()
    """Processes that get `signal` while a turn of theirs is in one of `states`, so that others have to take over."""
    states: tuple[str, ...] = ("running", "fallback")
    signal: Signals = SIGKILL
    first_token_ms: float = 60
    inter_token_ms: float = 8
    failing: float = 0.0
    """How often, of each quarter of a second, the next model call is made to fail."""


_LOST_UNSEEN: Final = Plan(processes=(UPKEEP,), nth=(1, 1, 2), hit=(AGENTS,), first_token_ms=900)
_LOST_STREAMS: Final = Plan(processes=(UPKEEP,), nth=(1, 1, 2), hit=(AGENTS,), states=("streaming",), inter_token_ms=40)

PLANS: Final[dict[CrashPoint, Plan]] = {
    "after_produce_before_202": Plan(processes=(GATEWAY,)),
    "after_ledger_before_commit": Plan(processes=(ORCHESTRATOR,)),
    "after_preparing": Plan(processes=(ORCHESTRATOR,)),
    "after_route_before_hint": Plan(processes=(ORCHESTRATOR,)),
    "after_claim": Plan(processes=_WORKERS),
    "after_rescue_claim": Plan(processes=(AGENTS_DISCOVERY,), nth=(1, 1, 1), hit=(AGENTS,), first_token_ms=900),
    "after_arm": Plan(processes=_WORKERS),
    "after_request_sent": Plan(processes=_WORKERS),
    "after_fb_latch": Plan(processes=_WORKERS, nth=(1, 1, 2), failing=0.9),
    "before_latch": Plan(processes=_WORKERS),
    "after_latch_before_chunk1": Plan(processes=_WORKERS),
    "mid_stream": Plan(processes=_WORKERS, nth=(40, 150, 300)),
    "after_eos": Plan(processes=_WORKERS),
    "before_final": Plan(processes=_WORKERS),
    "after_final_before_publish": Plan(processes=_WORKERS),
    "drain_mid_stream": Plan(
        processes=(AGENTS,),
        nth=(1, 1, 1),
        hit=(AGENTS,),
        states=("streaming",),
        signal=SIGTERM,
        inter_token_ms=50,
    ),
    "after_letter": _LOST_UNSEEN,
    "letter_after_route": Plan(processes=(DEAD_LETTERS,), nth=(1, 1, 2), hit=(AGENTS,), first_token_ms=900),
    "after_sealing": _LOST_STREAMS,
    "after_seal": _LOST_STREAMS,
    "outbox_after_send": Plan(processes=(UPKEEP,)),
}
"""A point without a plan waits for the code that reaches it."""


@dataclass(kw_only=True)
class Row:
    """What came of one point."""

    point: CrashPoint
    processes: tuple[str, ...]
    crashes: int
    evidence: Evidence
    surprises: list[str]
    seconds: float
    violations: list[Violation] = field(default_factory=list[Violation])

    @property
    def sound(self) -> bool:
        """Whether it crashed, and nothing else went wrong."""
        return self.crashes > 0 and not self.violations and not self.surprises

    @property
    def slowest(self) -> float:
        """Seconds from the question to the end of the slowest turn."""
        asked = {promise.turn: promise.asked for promise in self.evidence.promises}
        took = [t.ended.timestamp() - asked[t.turn] for t in self.evidence.turns if t.ended and t.turn in asked]
        return max(took, default=0.0)

    def figures(self) -> dict[str, object]:
        """The row as it is kept."""
        return {
            "point": self.point,
            "turns": len(self.evidence.promises),
            "crashes": self.crashes,
            "found": {kind.value: sum(violation.kind is kind for violation in self.violations) for kind in Kind},
            "slowest_seconds": round(self.slowest, 1),
        }

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        counts = (str(sum(violation.kind is kind for violation in self.violations)) for kind in Kind)
        turns, slowest = str(len(self.evidence.promises)), f"{self.slowest:.1f} s"
        return (
            self.point,
            " ".join(self.processes),
            turns,
            str(self.crashes),
            *counts,
            slowest,
            f"{self.seconds:.0f} s",
        )


HEAD: Final = ("crash point", "process", "turns", "crashes", *(kind.value for kind in Kind), "slowest turn", "took")


async def crash_at(system: RunningSystem, point: CrashPoint, *, turns: int, seed: int) -> Row:
    """Let users have so many turns while processes die at `point`, wait until all has settled, and judge."""
    plan, found, began = PLANS[point], system.endpoints, time.monotonic()
    assert found.simulators is not None
    before = len(system.fallen)
    _pace(system, plan)
    _arm(system, point, plan)
    async with Users(gateway=found.gateway, key=found.api_key, seed=seed, name=point) as crowd:
        around = [asyncio.create_task(_hit(system, name, plan), name=f"hit-{name}") for name in plan.hit]
        if plan.failing:
            around.append(asyncio.create_task(ModelTrouble(system, seed=seed).disturb(plan.failing), name="models"))
        try:
            await crowd.talk(turns=turns, seconds=SECONDS, users=USERS, pause=0.0)
        finally:
            for task in around:
                task.cancel()
            await asyncio.gather(*around, return_exceptions=True)
        _pace(system, plan)
        await settled(found.database, [promise.turn for promise in crowd.promises])
        _disarm(system, point, plan, before)
        await crowd.read_all()
        whole = await gathered(found.database, found.simulators, crowd.promises, crowd.transcripts)
    evidence = whole.of(f"{point}-")
    return Row(
        point=point,
        processes=plan.processes,
        crashes=_crashes(system, before),
        evidence=evidence,
        surprises=surprises(crowd.met),
        seconds=time.monotonic() - began,
        violations=violations(evidence),
    )


def _pace(system: RunningSystem, plan: Plan) -> None:
    simulated = system.endpoints.simulators
    assert simulated is not None
    for base in (simulated.tgi, simulated.openai):
        set_fault(base, "none", first_token_ms=plan.first_token_ms, inter_token_ms=plan.inter_token_ms)


def _arm(system: RunningSystem, point: CrashPoint, plan: Plan) -> None:
    for name in plan.processes:
        system.lend(name, *({VARIABLE: f"{point}:{nth}"} for nth in plan.nth))
        _send(system, name, SIGKILL)


def _disarm(system: RunningSystem, point: CrashPoint, plan: Plan, before: int) -> None:
    """Let no later start die here; one that still could is started anew."""
    for name in plan.processes:
        system.lend(name)
        if sum(fall.name == name and fall.status == STATUS for fall in system.fallen[before:]) < len(plan.nth):
            _send(system, name, SIGKILL)


def _crashes(system: RunningSystem, before: int) -> int:
    return sum(fall.status == STATUS for fall in system.fallen[before:])


def _send(system: RunningSystem, name: str, number: Signals) -> None:
    """Send a signal; a process that is down just now needs none."""
    with suppress(KeyError, ProcessLookupError):
        os.kill(system.processes[name], number)


async def _hit(system: RunningSystem, name: str, plan: Plan) -> None:
    """Hit a process in the middle of its work, as often as the others shall crash."""
    engine = create_engine(system.endpoints.database, pool_size=1)
    statement = text("SELECT 1 FROM turns WHERE state = ANY(:states) AND owner LIKE :owner LIMIT 1")
    try:
        for _ in plan.nth:
            while True:
                await asyncio.sleep(0.05)
                process = system.processes.get(name, -1)
                values = {"states": list(plan.states), "owner": f"%:{process}"}
                async with engine.connect() as connection:
                    if (await connection.execute(statement, values)).first():
                        break
            os.kill(process, plan.signal)
    finally:
        await engine.dispose()


def main(words: Sequence[str] | None = None) -> int:
    """Run from the command line; 1 if a point was not come to or anything was found that must not be."""
    asked = _parser().parse_args(words)
    only: set[str] = set(asked.only or PLANS)
    points: list[CrashPoint] = [point for point in PLANS if {point} <= only]
    rows: list[Row] = []
    with scratch() as state, broken_system(state, log=LOGS / "crash-points.log") as broken:
        for place, point in enumerate(points):
            rows.append(asyncio.run(crash_at(broken.system, point, turns=asked.turns, seed=asked.seed + place)))
            wrong = len(rows[-1].violations) + len(rows[-1].surprises)
            sys.stdout.write(f"{point}: {rows[-1].crashes} crashes, {wrong} findings, {rows[-1].seconds:.0f} s\n")
            sys.stdout.flush()
    sys.stdout.write(f"{told(rows)}\n")
    if asked.json:
        keep(asked.json, {"seed": asked.seed, "points": [row.figures() for row in rows]})
    return 0 if all(row.sound for row in rows) else 1


def told(rows: Sequence[Row]) -> str:
    """The table, and what there is to say about the rows that are not sound."""
    lines = [aligned([HEAD, *(row.cells() for row in rows)])]
    for row in rows:
        if not row.crashes:
            lines += ["", f"{row.point}: no process came there"]
        if row.surprises:
            lines += ["", f"{row.point}: users met {', '.join(row.surprises)}"]
        for violation in row.violations:
            lines += ["", f"{row.point}: {violation.kind}: turn {violation.turn} {violation.why}"]
            lines += [f"  {step}" for step in row.evidence.history(violation.turn)]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.chaos.crash_points", description=__doc__)
    parser.add_argument("--turns", type=int, default=50, help="at each point")
    parser.add_argument("--only", action="append", choices=sorted(PLANS), help="a point; may be repeated")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
