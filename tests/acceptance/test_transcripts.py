"""Five languages, seven agents: what `docs/transcripts.md` shows."""

from pathlib import Path

from cli.system import running_system
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


def _check_routes(spoken: list[Spoken]) -> None:
    agents, languages = scripts()
    assert [(one.seen_language, one.agent, one.state) for one in spoken] == [
        (language, agent, "answered") for language in languages for agent in agents
    ]
