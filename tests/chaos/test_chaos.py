"""A short fault run for every build; `make chaos` runs a longer one."""

import asyncio
import random
import sys
from pathlib import Path

import pytest

from tests.chaos.faults import deck, others
from tests.chaos.trial import LOGS, broken_system, chaos

pytestmark = pytest.mark.timeout(300)

SEED = 20


def test_nothing_is_lost_or_said_twice_while_everything_fails_once(state_directory: Path) -> None:
    """Kills, freezes, restarts, ill links, repeated messages and failing models leave each turn ended, told once."""
    faults = deck(random.Random(SEED), kills=6, freezes=3, rest=others(apache=False, disks=()))
    with broken_system(state_directory, log=LOGS / "chaos.log") as broken:
        outcome = asyncio.run(chaos(broken, turns=150, seconds=60, faults=faults, seed=SEED, pause=1.0))

    sys.stdout.write(f"seed {SEED}\n{outcome}\n")
    assert outcome.violations == []
    assert outcome.surprises == []
    assert outcome.failed == []
    assert len(outcome.injected) == len(faults)
    assert len(outcome.evidence.promises) > 50
