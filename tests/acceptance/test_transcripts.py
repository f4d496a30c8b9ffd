"""Five languages, seven agents: what `docs/transcripts.md` shows."""

from pathlib import Path

import yaml

from cli.simulated import excessive, model_calls
from cli.system import running_system
from infra.policy import DEFAULT_POLICY
from workers.answers.sanitise import to_text

from .conftest import LOGS, bare_environment
from .transcripts import PAGE, Spoken, page, play, scripts


def test_five_conversations_pass_through_all_agents_without_a_model(state_directory: Path) -> None:
    """Each line is answered in its language by its agent, with sources and a diagram; the page tells it."""
    with running_system(
        state_directory / "s", environ=bare_environment(), log=LOGS / "transcripts.log", samples=True, offline=True
    ) as system:
        spoken = list(play(system))

    _check_routes(spoken)
    for one in spoken:
        assert to_text(one.html).startswith("(offline)")
        assert one.sources or one.agent in ("discovery", "adaptive_response"), one
    drawn = [one.language for one in spoken if one.agent == "content_generator" and len(one.assets) == 2]
    assert "en" in drawn  # where what was found has steps
    assert PAGE.read_text(encoding="utf-8") == page(spoken)


def test_the_same_conversations_work_with_model_servers(state_directory: Path) -> None:
    """With servers of models behind the same routes each line is answered by its agent, with at most two calls."""
    policy = yaml.safe_load(DEFAULT_POLICY.read_text(encoding="utf-8"))
    policy["routing"]["router"] = "classifier"
    chosen = state_directory / "policy.yaml"
    chosen.write_text(yaml.safe_dump(policy), encoding="utf-8")
    environ = {**bare_environment(), "FAIRLEAD_POLICY": str(chosen)}
    with running_system(
        state_directory / "s", environ=environ, log=LOGS / "transcripts-models.log", samples=True
    ) as system:
        spoken = list(play(system, "en", "de"))
        simulated = system.endpoints.simulators
        assert simulated is not None
        calls = [*model_calls(simulated.tgi), *model_calls(simulated.openai)]

    _check_routes(spoken, "en", "de")
    assert excessive(calls) == []
    assert not any("(offline)" in one.html for one in spoken)


def _check_routes(spoken: list[Spoken], *languages: str) -> None:
    agents, all_languages = scripts()
    assert [(one.seen_language, one.agent, one.state) for one in spoken] == [
        (language, agent, "answered") for language in languages or all_languages for agent in agents
    ]
