"""The command that plays the scripts on model servers of somebody's own; here they are the simulators."""

import os
from pathlib import Path

import pytest

from cli.system import RunningSystem
from infra.policy import load_policy

from .real_models import Servers, counts, line, main, refused
from .transcripts import play, scripts


def test_what_the_servers_did_is_told_without_anybodys_words(system: RunningSystem) -> None:
    """Each turn has a line with its model calls, of which none was refused; nothing that was said is in it."""
    spoken = list(play(system, only=["en"]))
    assert [one.agent for one in spoken] == scripts()[0]
    assert all(1 <= len(one.calls) <= 2 for one in spoken)
    assert line(spoken[0]).endswith("  discovery-slm: succeeded")
    assert not [one for one in spoken if one.asked in line(one)]
    assert "discovery-slm  succeeded  1" in counts(spoken)
    assert refused(spoken) == []


def test_a_server_that_is_away_is_told_and_costs_the_exit_status(
    state_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played on an address where nobody listens, every call is `unavailable`, and the command says where to look."""
    for name in [name for name in os.environ if name.startswith(("FAIRLEAD_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    status = main(
        ["--frontier-url", "http://127.0.0.1:9", "--model", "m", "--language", "en", "--state", str(state_directory)]
    )
    said = capsys.readouterr().out
    assert status == 1
    assert "calls of frontier failed with unavailable; `fairlead explain`" in said


def test_the_policy_of_a_run_names_the_servers_models() -> None:
    """Both frontier models get the one name, the fine-tuned model its own without an adapter, clocks are longer."""
    given = load_policy()
    policy = Servers(model="big", tuned_model="small", slower=3, input_tokens=2000, max_tokens=500).policy(given)
    assert policy.served_by("frontier") == ["big", "big"]
    assert [(m.model, m.adapter) for m in policy.models.values() if m.backend == "discovery"] == [("small", None)]
    assert {agent.input_tokens for agent in policy.agents.values()} == {2000}
    assert {agent.max_tokens for agent in policy.agents.values()} == {400, 500}
    assert policy.deadlines.turn == given.deadlines.turn * 3
    assert Servers().policy(given) == given


def test_no_server_at_all_is_no_success() -> None:
    """Where nothing was asked of any model, the command does not call that well."""
    assert refused([]) == ["No model was asked: name a server with --frontier-url, or set FAIRLEAD_FRONTIER_BASE_URL."]
