"""Processes that die at a named place; `make chaos` goes through all of them."""

import asyncio
import sys
from pathlib import Path

import pytest

from cli.processes import AGENTS, AGENTS_DISCOVERY, GATEWAY, ORCHESTRATOR, UPKEEP
from infra.crash_points import CRASH_POINTS, CrashPoint
from tests.chaos.crash_points import PLANS, crash_at, told
from tests.chaos.faults import processes
from tests.chaos.trial import LOGS, broken_system

TO_COME = {"replay_after_insert", "letter_after_route"}
SHORT: tuple[CrashPoint, ...] = ("after_ledger_before_commit", "after_latch_before_chunk1")


def test_every_point_has_a_plan() -> None:
    """Each place can be come to by traffic; the processes named are such as run."""
    assert set(CRASH_POINTS) - TO_COME <= PLANS.keys()
    dying = {name for plan in PLANS.values() for name in (*plan.processes, *plan.hit)}
    assert {GATEWAY, ORCHESTRATOR, AGENTS, AGENTS_DISCOVERY, UPKEEP} <= dying <= set(processes())


@pytest.mark.timeout(300)
def test_a_process_that_dies_at_a_named_place_loses_and_repeats_nothing(state_directory: Path) -> None:
    """Orchestrator and workers die between two steps, more than once, and every turn still ends once."""
    with broken_system(state_directory, log=LOGS / "crash-points-short.log") as broken:
        rows = [asyncio.run(crash_at(broken.system, point, turns=20, seed=7)) for point in SHORT]

    sys.stdout.write(f"{told(rows)}\n")
    assert [row.point for row in rows if not row.sound] == []
