"""Operators' commands on a running system: dead letters that came to be by themselves, and what becomes of them."""

import asyncio
import json
import signal
import stat
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from cli.conversation import Conversation
from cli.http import request
from cli.simulated import set_fault
from cli.system import RunningSystem
from schemas.frames import Phase

from .conftest import bare_environment
from .test_system import FAIRLEAD, PATIENCE, answer_to, fairlead

SECRET = "our pallets of turquoise umbrellas"
ASKED = f"We lose {SECRET}."


@pytest.fixture
def names(system: RunningSystem) -> list[str]:
    """Four conversations whose turns no model could answer, and whose models are well again."""
    found, simulated = system.endpoints, system.endpoints.simulators
    assert simulated is not None
    names = [f"dlq-{uuid.uuid4().hex[:8]}" for _ in range(4)]

    async def ask() -> None:
        for name in names:
            async with Conversation(found.gateway, key=found.api_key, conversation=name) as conversation:
                assert (await answer_to(conversation, ASKED))[-1].phase is not Phase.DONE

    set_fault(simulated.tgi, "close", before_headers=True)
    set_fault(simulated.openai, "status", status=503)
    asyncio.run(ask())
    set_fault(simulated.tgi, "none")
    set_fault(simulated.openai, "none")
    return names


class Operator:
    """Somebody at the command line of a system."""

    def __init__(self, system: RunningSystem) -> None:
        self._state = ("--state", str(system.state))

    def says(self, *words: str, status: int = 0) -> str:
        """Return what a command prints, on both outputs."""
        done = fairlead(*words, *self._state)
        assert done.returncode == status, done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr or "--reveal" in words
        return done.stdout + done.stderr

    def reads(self, *words: str, status: int = 0) -> Any:
        """Return the JSON that a command prints."""
        done = fairlead(*words, "--json", *self._state)
        assert done.returncode == status, done.stdout + done.stderr
        assert SECRET not in done.stdout or "--reveal" in words
        return json.loads(done.stdout)


def shown_in(system: RunningSystem, conversation: str) -> list[str]:
    """Return how each turn of a conversation ended, in order."""
    found = system.endpoints
    answer = request(f"{found.gateway}/v1/conversations/{conversation}", key=found.api_key)
    return [turn["state"] for turn in json.loads(answer)["turns"]]


def test_dead_letters_are_seen_and_delivered_once(system: RunningSystem, names: list[str]) -> None:
    """What nobody could answer is listed, shown, counted, planned, answered in its conversation, and not again."""
    operator, where = Operator(system), f"conversation in ({', '.join(names)})"
    letters = operator.reads("dlq", "ls", "--where", where)["dead_letters"]
    assert {letter["state"] for letter in letters} == {"unanswered"}
    assert [letter["conversation_id"] for letter in letters] == names[::-1]
    assert "backend_failed_twice" in operator.says("dlq", "ls", "--where", where)
    assert "4 dead letters." in operator.says("dlq", "stats", "--where", where)
    first = letters[-1]
    assert f"{len(ASKED)} characters; --reveal" in operator.says("dlq", "show", first["dead_letter_id"])
    assert ASKED in operator.says("dlq", "show", first["dead_letter_id"], "--reveal")

    deliver = ("dlq", "replay", "--where", where, "--mode", "deliver")
    plan = operator.says(*deliver, "--dry-run")
    assert "4  to be answered, and shown to their visitors" in plan
    assert "say --yes" in operator.says(*deliver, status=3)
    assert operator.reads("dlq", "ls", "--where", f"{where} and replays>0")["dead_letters"] == []
    done = operator.says(*deliver, "--yes")
    assert "finished" in done
    assert "4 answered, 0 failed, 0 skipped of 4." in done
    assert {tuple(shown_in(system, name)[1:]) for name in names} == {("answered",)}
    again = operator.says(*deliver, "--yes")
    assert "4  answered already: left alone" in again
    assert "There is nothing to replay." in again

    said = operator.says("explain", first["turn_id"])
    assert "a replay answered it later" in said.splitlines()[0]
    replay = operator.reads("dlq", "show", first["dead_letter_id"])["replay_turn"]
    assert f"Replay (deliver) of turn {first['turn_id']}: answered by" in operator.says("explain", replay)


def test_a_comparison_shows_both_answers(system: RunningSystem, names: list[str]) -> None:
    """A job's items tell old and new answer, and with --reveal the lines in which they differ; no visitor sees it."""
    operator, where = Operator(system), f"conversation in ({', '.join(names[:2])})"
    asked = ("dlq", "replay", "--where", where, "--mode", "compare", "--yes")
    job = operator.reads(*asked, "--detach")["job"]["job_id"]
    assert operator.reads("dlq", "jobs", "watch", job)["job"]["answered"] == 2
    assert job in operator.says("dlq", "jobs", "ls")
    told = operator.says("dlq", "jobs", "items", job, "--only", "answered")
    assert told.count("; another text") == 2
    revealed = operator.says("dlq", "jobs", "items", job, "--reveal")
    assert revealed.count("--- old") == 2
    assert operator.reads("dlq", "jobs", "items", job, "--only", "failed") == {"items": [], "more": False}
    assert {len(shown_in(system, name)) for name in names[:2]} == {1}
    assert "It is finished" in operator.says("dlq", "jobs", "pause", job, status=1)


def test_who_watches_a_job_may_leave(system: RunningSystem, names: list[str]) -> None:
    """Ctrl-C ends the watching with a word on how to go on, not the job; aborted it has not gone well."""
    operator, where = Operator(system), f"conversation in ({', '.join(names)})"
    asked = ("dlq", "replay", "--where", where, "--mode", "deliver", "--rate", "1/m", "--yes")
    watching = subprocess.Popen(
        [*FAIRLEAD, *asked, "--state", str(system.state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=bare_environment(),
    )
    with watching:
        assert watching.stderr is not None
        begun = watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=PATIENCE)
    assert (watching.returncode, "goes on without you" in said) == (0, True), begun + said
    job = begun.split()[2]
    assert f"dlq jobs abort {job} --state {system.state}" in said
    assert "is paused" in operator.says("dlq", "jobs", "pause", job)
    assert "is running" in operator.says("dlq", "jobs", "resume", job)
    assert "was aborted" in operator.says("dlq", "jobs", "abort", job)
    ended = operator.reads("dlq", "jobs", "watch", job, status=1)["job"]
    assert (ended["state"], ended["running"], ended["answered"] + ended["skipped"]) == ("aborted", 0, 4)
    assert ended["skipped"] >= 2


def test_what_is_discarded_stays_and_is_written_down(system: RunningSystem, names: list[str], tmp_path: Path) -> None:
    """Discarding takes a reason and a yes, an export has every letter, and the audit tells who did what."""
    operator, where = Operator(system), f"conversation in ({', '.join(names)})"
    file = tmp_path / "letters.jsonl"
    operator.says("dlq", "export", "--where", where, "--reveal", "--out", str(file))
    exported = [json.loads(line) for line in file.read_text().splitlines()]
    assert [letter["text"] for letter in exported] == [ASKED] * 4
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert operator.says("dlq", "export", "--where", where).count("\n") == 4

    one = exported[0]["dead_letter_id"]
    discard = ("dlq", "discard", "--reason", "a test of ours")
    assert "say --yes" in operator.says(*discard, one, status=3)
    assert operator.reads(*discard, one, "--yes") == {"discarded": 1}
    assert "1 of them stay" in operator.says(*discard, one, "--yes", status=1)
    assert "Discarded 3 dead letters." in operator.says(*discard, "--where", where, "--yes")
    assert operator.says("dlq", "stats", "--where", f"{where} and state=discarded").endswith("\n4 dead letters.\n")

    audit = operator.reads("audit", "--subject", "dead_letters")["rows"]
    verbs = [row["verb"] for row in audit if names[0] in json.dumps(row["detail"]) or one in json.dumps(row["detail"])]
    assert verbs[0] == "dead_letters_discarded"
    assert "dead_letters_exported" in verbs
    assert "a test of ours" in operator.says("audit")


def test_what_cannot_be_read_is_said(system: RunningSystem) -> None:
    """A bad or empty filter is usage (2), a key without the scope is refused (3), an unknown id fails (1)."""
    operator, found, nobody = Operator(system), system.endpoints, str(uuid.uuid4())
    assert "'reason' is one of: undecodable" in operator.says("dlq", "ls", "--where", "reason=rain", status=2)
    for command in (("replay",), ("discard", "--reason", "none", "--yes"), ("replay", "--where", " ")):
        assert "The filter is empty, which would mean" in operator.says("dlq", *command, status=2)
    assert "is no dead letter's id" in operator.says("dlq", "show", "\x1b[2J", status=2)
    assert "There is no dead letter" in operator.says("dlq", "show", nobody, status=1)
    assert "There is no replay job" in operator.says("dlq", "jobs", "abort", nobody, status=1)
    assert "--rate is dead letters a second" in operator.says("dlq", "replay", "--rate", "fast", status=2)
    done = fairlead("dlq", "ls", "--url", found.gateway, "--key", found.api_key)
    assert (done.returncode, done.stdout) == (3, "")
    assert "--scope operator" in done.stderr
