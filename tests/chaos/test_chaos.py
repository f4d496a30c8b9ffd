"""A short fault run for every build; `make chaos` runs a longer one."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.chaos.run import broken_system, chaos

pytestmark = [pytest.mark.xdist_group("system"), pytest.mark.timeout(240)]

LOG = Path(__file__).parents[2] / ".cache" / "test-logs" / "chaos.log"
SEED = 20


def test_nothing_is_lost_or_said_twice_while_everything_fails_once(state_directory: Path) -> None:
    """Kills, freezes, restarts and failing models under traffic leave each turn ended, in order, told once."""
    with broken_system(state_directory, log=LOG) as system:
        outcome = asyncio.run(chaos(system, turns=150, seconds=60, faults=13, seed=SEED))

    sys.stdout.write(f"seed {SEED}\n{outcome}\n")
    assert outcome.violations == []
    assert outcome.surprises == []
    assert len(outcome.injected) == 13
    assert len(outcome.evidence.promises) > 100
