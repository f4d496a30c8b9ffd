"""The policy: the shipped file fits, and a file that does not says where."""

from pathlib import Path

import pytest
import yaml

from infra.policy import DEFAULT_POLICY, PolicyInvalid, load_policy
from schemas.agents import ANSWERING, Lane, lane_of

_LATER = {"rescues", "retention", "assets", "routing", "answers"}
"""Sections that files of version 1 may lack."""


def test_the_shipped_policy_names_two_models_for_every_answering_agent() -> None:
    """Each agent that answers has a primary and another model as fallback, and only discovery the fine-tuned one."""
    policy = load_policy()
    for agent in ANSWERING:
        chosen = policy.agents[agent]
        assert chosen.primary != chosen.fallback
        assert policy.models[chosen.fallback].backend == "frontier"
        assert (policy.models[chosen.primary].backend == "discovery") == (agent == "discovery")
        assert lane_of(agent) in Lane


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"agents": {}}, "names no models for discovery"),
        ({"deadlines": {"queue": 100}}, "deadlines"),
        ({"rescues": {"per_minute": 0}}, "rescues.per_minute"),
        ({"rescues": {"burst": 0}}, "rescues.burst"),
        ({"retention": {"conversations": 10}}, "kafka <= conversations"),
        ({"retention": {"keys": 80}}, "conversations <= keys"),
        ({"retention": {"dead_letters": 13}}, "kafka <= dead_letters"),
        ({"assets": {"image": {"model": ""}}}, "assets.image.model"),
        ({"assets": {"image": {"model": "m", "size": "huge"}}}, "assets.image.size"),
        ({"unknown": 1}, "unknown"),
        ({"version": 0}, "version"),
    ],
)
def test_a_policy_that_does_not_fit_says_where(tmp_path: Path, change: dict[str, object], says: str) -> None:
    """The error names the file and the place."""
    broken = tmp_path / "policy.yaml"
    broken.write_text(yaml.safe_dump({**yaml.safe_load(DEFAULT_POLICY.read_text()), **change}))
    with pytest.raises(PolicyInvalid, match=says) as caught:
        load_policy(broken)
    assert str(broken) in str(caught.value)


def test_an_older_policy_file_stays_valid(tmp_path: Path) -> None:
    """A file from before a section existed gets the defaults, which are those of the shipped policy."""
    shipped = yaml.safe_load(DEFAULT_POLICY.read_text())
    older = tmp_path / "policy.yaml"
    older.write_text(yaml.safe_dump({name: value for name, value in shipped.items() if name not in _LATER}))
    assert load_policy(older) == load_policy()


@pytest.mark.parametrize("text", [None, "{", "- a"])
def test_a_policy_that_is_missing_or_no_yaml_is_refused(tmp_path: Path, text: str | None) -> None:
    """A missing file, broken YAML and a list are each one sentence."""
    path = tmp_path / "policy.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PolicyInvalid):
        load_policy(path)
