"""`fairlead route`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app


@pytest.fixture(autouse=True)
def nothing_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No model is configured, and no system was started here."""
    for name in (
        "OPENAI_API_KEY",
        "FAIRLEAD_FRONTIER_API_KEY",
        "FAIRLEAD_FRONTIER_BASE_URL",
        "FAIRLEAD_DISCOVERY_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_each_line_of_a_file_is_decided(tmp_path: Path) -> None:
    """One JSON object comes out for each that goes in, with its id; a line that is none is told and costs status 1."""
    lines = [
        {"id": "a", "text": "Gibt es eine Schnittstelle zu SAP?"},
        {"id": 2, "text": "How long does the rollout take?", "history": [
            {"role": "user", "text": "how long does the rollout take"}, {"role": "assistant", "text": "Two weeks."},
        ]},
        {"id": 3, "text": ""},
        {"id": 4, "text": "Can you guarantee the price?"},
    ]  # fmt: skip
    file = tmp_path / "messages.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    done = CliRunner().invoke(app, ["route", "--file", str(file), "--json", "--router", "rules"])
    decided = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 1
    assert "Line 3 is left out: text" in done.stderr
    assert [(one["id"], one["agent"]) for one in decided] == [
        ("a", "technical_consultant"),
        (2, "adaptive_response"),
        (4, "discovery"),
    ]
    assert (decided[0]["language"], decided[1]["repeats"]) == ("de", 1)
    assert (decided[2]["risk"], decided[2]["frontier_only"]) == ("price_commitment", True)


def test_without_a_frontier_the_classifier_decides_one_message() -> None:
    """The policy's own router is the frontier; nothing serves it here, and the decision says who stood in."""
    done = CliRunner().invoke(app, ["route", "Is there SSO with SAML?"])
    assert done.exit_code == 0
    assert done.stdout.startswith("technical_consultant")
    assert "classifier-2-" in done.stdout


def test_a_message_or_a_file_must_be_given() -> None:
    """Neither of both, or both, is a question of usage."""
    done = CliRunner().invoke(app, ["route"])
    assert done.exit_code != 0
