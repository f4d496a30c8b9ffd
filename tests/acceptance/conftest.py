"""A whole system of real processes, one a session, started as `fairlead up` starts it.

All tests of this folder run on one worker of pytest-xdist (`tests/scheduling.py`), so one system is started.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.breakers import change_breaker
from cli.simulated import set_fault
from cli.system import RunningSystem, running_system
from schemas.agents import ANSWERING

LOGS = Path(__file__).parents[2] / ".cache" / "test-logs"
"""Logs outlive the session: they say what happened in a failed one."""


def bare_environment() -> dict[str, str]:
    """Return this environment without anything that would be used instead of what a system starts itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAIRLEAD_", "OPENAI_"))}
    # Asking an empty broker 200 times a second takes a twentieth of a core for each system that waits for its test.
    return {**kept, "FAIRLEAD_KAFKA_FETCH_MAX_WAIT_MS": "25"}


@pytest.fixture(scope="session")
def running(session_state: Path) -> Iterator[RunningSystem]:
    """The session's system; ask for `system`."""
    log = LOGS / f"system-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.log"
    log.unlink(missing_ok=True)
    with running_system(session_state / "system", environ=bare_environment(), log=log) as system:
        # Tests break its models one after the other: an open lane would be one test's doing and another's surprise.
        for agent in ANSWERING:
            closed: dict[str, object] = {"forced": "closed", "reason": "models fail on purpose"}
            change_breaker(system.endpoints.gateway, f"agent.{agent}", closed, key=system.endpoints.operator_key)
        yield system


@pytest.fixture
def system(running: RunningSystem) -> Iterator[RunningSystem]:
    """The session's system, whose simulated models are well again after the test."""
    yield running
    simulated = running.endpoints.simulators
    assert simulated is not None
    for base in (simulated.tgi, simulated.openai):
        set_fault(base, "none")
