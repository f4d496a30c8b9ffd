"""An outage of the fine-tuned model at steady traffic, drilled on a system of its own whose breaker is quick."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.simulated import excessive, model_calls
from cli.system import RunningSystem, running_system
from infra.policy import load_policy

from .conftest import LOGS, bare_environment
from .test_system import FAIRLEAD, PATIENCE, fairlead

pytestmark = pytest.mark.timeout(240)

FIRST_TOKEN = 1.0
"""Seconds: the primary's deadline."""

SLACK = 1.0
"""Seconds by which a loaded machine may be late in noticing that a clock has run out."""


@pytest.fixture(scope="module")
def quick(session_state: Path) -> Iterator[RunningSystem]:
    """A system that loses patience with a model after a second, and tries it again after three."""
    policy = load_policy().model_dump(mode="json")
    policy["models"]["discovery-slm"]["first_token"] = FIRST_TOKEN
    policy["breaker"] = {"window": 6, "calls": 5, "share": 0.5, "open": 3, "probe": 20}
    path = session_state / "outage-policy.yaml"
    path.write_text(yaml.safe_dump(policy), encoding="utf-8")
    log = LOGS / f"outage-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.log"
    log.unlink(missing_ok=True)
    environ = {**bare_environment(), "FAIRLEAD_POLICY": str(path)}
    with running_system(session_state / "outage", environ=environ, log=log) as system:
        yield system


def drilled(system: RunningSystem, *words: str) -> dict[str, Any]:
    """The report of a drill that found nothing but waiting."""
    done = fairlead("drill", "discovery", *words, "--json", "--state", str(system.state))
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def check(report: dict[str, Any]) -> None:
    """Everybody was answered, at the cost that is allowed, and the breaker opened and closed by itself."""
    whole, away = report["whole"], report["parts"]["away"]
    assert whole["answered"] == whole["turns"] > 60
    assert away["turns"] > 30
    assert 1.0 <= whole["calls_per_turn"] <= 2.0
    assert report["once_open"]["turns"] > 10
    assert report["once_open"]["calls_per_turn"] <= 1.25
    # Not the first word's time: that of a machine with other things to do would say little.
    assert whole["most_added_seconds"] <= FIRST_TOKEN + SLACK
    assert report["breaker"]["opened_after_seconds"] is not None
    assert report["breaker"]["closed_after_seconds"] is not None


def test_an_outage_of_the_model_costs_visitors_a_wait_and_nothing_else(quick: RunningSystem) -> None:
    """While the model hangs every turn is answered, by two calls at first and by one once the breaker is open."""
    simulated = quick.endpoints.simulators
    assert simulated is not None

    report = drilled(quick, "--for", "15s", "--rate", "4/s", "--simulator", "hang")

    check(report)
    calls = [call for base in (simulated.tgi, simulated.openai) for call in model_calls(base)]
    assert excessive(calls) == []
    # The ledger and the model servers counted the same calls.
    assert len(calls) == round(report["whole"]["calls_per_turn"] * report["whole"]["turns"])
    assert Counter(call.attempt for call in calls).keys() == {"1", "2"}


def test_a_drill_by_the_workers_needs_no_simulator(quick: RunningSystem) -> None:
    """Workers that leave the model alone on request show the same, and ask it again when the drill is over."""
    report = drilled(quick, "--for", "12s", "--rate", "4/s")
    check(report)
    lane = breaker(quick)
    assert (lane["state"], lane["forced"], lane["away_until"]) == ("closed", None, None)


def test_a_drill_that_is_interrupted_gives_the_model_back(quick: RunningSystem) -> None:
    """Ctrl-C in the middle of the outage ends it at once."""
    words = ("drill", "discovery", "--for", "60s", "--rate", "1/s", "--state", str(quick.state))
    with subprocess.Popen([*FAIRLEAD, *words], env=bare_environment(), stderr=subprocess.PIPE, text=True) as drill:
        until = time.monotonic() + PATIENCE
        while breaker(quick)["away_until"] is None:
            assert time.monotonic() < until
            assert drill.poll() is None
        drill.send_signal(signal.SIGINT)
        _, said = drill.communicate(timeout=PATIENCE)
    assert (drill.returncode, said) == (130, "Interrupted; the model has been given back.\n")
    assert breaker(quick)["away_until"] is None


def test_breakers_are_set_by_those_who_run_the_installation(quick: RunningSystem) -> None:
    """Open and auto are told as they are; a tenant's plain key is refused with exit status 3, also for a drill."""
    here, found = ("--state", str(quick.state)), quick.endpoints
    done = fairlead("breakers", "open", "support", "--reason", "its \x1b[31mserver", *here)
    assert (done.returncode, "open     by hand" in done.stdout, "\x1b" in done.stdout) == (0, True, False)
    assert breaker(quick, "agent.support")["forced"] == "open"
    assert fairlead("breakers", "auto", "support", *here).returncode == 0
    assert breaker(quick, "agent.support")["forced"] is None

    elsewhere = ("--url", found.gateway, "--key", found.api_key)
    for words in (("breakers", "open", "support"), ("breakers", "ls"), ("drill", "discovery")):
        refused = fairlead(*words, *elsewhere)
        assert (refused.returncode, refused.stdout) == (3, "")
        assert "--scope installation" in refused.stderr
    assert fairlead("breakers", "open", "orchestrator", *here).returncode == 2


def breaker(system: RunningSystem, lane: str = "agent.discovery") -> dict[str, Any]:
    """A lane's breaker, as the command line tells it."""
    done = fairlead("breakers", "ls", "--json", "--state", str(system.state))
    [found] = [found for found in json.loads(done.stdout)["breakers"] if found["lane"] == lane]
    return dict(found)
