"""Crash points: each has its place in the code, and only what is planned happens."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.failure import sentence_of
from infra.crash_points import CRASH_POINTS, STATUS, Crash, UnknownCrashPoint

ROOT = Path(__file__).parents[3]
TO_COME = {"replay_after_insert", "letter_after_route"}


def test_every_point_is_reached_somewhere() -> None:
    """Each name stands at exactly one place of the product; two are kept for places that may not be there yet."""
    calls: list[str] = []
    for folder in ("producers", "workers", "infra"):
        for path in (ROOT / folder).rglob("*.py"):
            for call in re.findall(r"\breach\((.*)\)", path.read_text(encoding="utf-8")):
                calls += re.findall(r'"(\w+)"', call)
    assert len(calls) == len(set(calls))
    assert set(CRASH_POINTS) - TO_COME <= set(calls) <= set(CRASH_POINTS)


def test_a_process_dies_the_nth_time() -> None:
    """The status is a killed process's, and nothing after the place is done, not even what waits to be written."""
    code = (
        "from infra.crash_points import arm, reach\narm()\n"
        "for n in range(5):\n    reach('after_arm'); reach('after_claim'); print(n, flush=True)"
    )
    environ = {"PYTHONPATH": str(ROOT), "FAIRLEAD_CRASH": "after_claim:3"}
    ended = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (STATUS, ["0", "1"], "")


def test_nothing_is_planned_without_the_variable() -> None:
    """An empty value plans nothing."""
    assert Crash.planned("") is None


@pytest.mark.parametrize(
    "value", ["nowhere:1", "after_claim", "after_claim:0", "after_claim:-1", "after_claim:x", ":1"]
)
def test_an_unknown_place_is_refused(value: str) -> None:
    """A name or number that is none is refused, with the names there are, and told as a command's ending."""
    with pytest.raises(UnknownCrashPoint, match="after_claim, after_rescue_claim") as refused:
        Crash.planned(value)
    failed = sentence_of(refused.value)
    assert failed is not None
    assert failed.status == 2


def test_a_process_refuses_to_start_with_an_unknown_place() -> None:
    """The command ends with one sentence, before anything is connected to."""
    environ = {"PYTHONPATH": str(ROOT), "FAIRLEAD_CRASH": "nowhere:1"}
    command = [sys.executable, "-m", "cli.main", "serve", "upkeep"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("fairlead: FAIRLEAD_CRASH is 'nowhere:1', but must be NAME:NTH")
