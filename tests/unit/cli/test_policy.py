"""`fairlead policy show` tells what processes would be started with."""

import json
from pathlib import Path

import yaml
from typer.testing import CliRunner

from cli.main import app
from infra.policy import DEFAULT_POLICY


def shown(*words: str) -> str:
    told = CliRunner().invoke(app, ["policy", "show", *words])
    assert told.exit_code == 0, told.output
    return told.output


def test_the_shipped_policy_is_told_whole() -> None:
    """Every section and the versions of the wording are told, as JSON too."""
    found = json.loads(shown("--json"))
    assert found["policy"].keys() >= yaml.safe_load(DEFAULT_POLICY.read_text(encoding="utf-8")).keys()
    assert found["wording"].keys() == {"redaction", "commitments", "abuse"}
    assert all(version >= 1 for version in found["wording"].values())


def test_a_changed_policy_is_seen_before_it_is_in_force(tmp_path: Path) -> None:
    """What a file would prohibit and redact is told, and characters that command a terminal are not passed on."""
    policy = yaml.safe_load(DEFAULT_POLICY.read_text(encoding="utf-8"))
    policy["guardrails"] = {
        "version": 7,
        "redaction": {"patterns": {"member": "M-[0-9]{6}"}},
        "commitments": {"prohibited": ["legal"]},
    }
    policy["bounded_reply"] = "\x9b31m"
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy), encoding="utf-8")
    lines = shown("guardrails", "--file", str(path)).splitlines()
    assert "guardrails.version = 7" in lines
    assert 'guardrails.commitments.prohibited = ["legal"]' in lines
    assert 'guardrails.redaction.patterns.member = "M-[0-9]{6}"' in lines
    assert "\x9b" not in shown("--file", str(path))


def test_an_unknown_section_and_a_wrong_file_are_sentences(tmp_path: Path) -> None:
    """The command says which sections there are, and what does not fit."""
    unknown = CliRunner().invoke(app, ["policy", "show", "nothing"])
    assert unknown.exit_code != 0
    assert "guardrails" in str(unknown.exception)
    wrong = tmp_path / "policy.yaml"
    wrong.write_text("version: 0", encoding="utf-8")
    refused = CliRunner().invoke(app, ["policy", "show", "--file", str(wrong)])
    assert refused.exit_code != 0
    assert "does not fit" in str(refused.exception)
