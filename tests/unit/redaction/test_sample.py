"""What the redaction finds of the labelled sample, as CI holds it; `python -m benchmarks.redaction` tells more."""

from typing import Literal

import pytest

from benchmarks.redaction.report import Report, compare, hits_in, labelled, ordering_turns, read_sample
from infra.redaction.redactor import Redactor
from infra.redaction.spans import STRUCTURED, Kind, Span
from schemas.guardrail_policy import RedactionPolicy
from tests.architecture.conftest import ROOT

MOST_FALSE_HITS = 1
FLOORS = {Kind.NAME: 0.8, Kind.ADDRESS: 0.75}
"""Found by cues only; the sample has some without."""


@pytest.fixture(scope="module")
def found() -> Report:
    """The sample, compared once."""
    return compare(read_sample(), Redactor())


def test_the_sample_is_large_enough() -> None:
    """At least 300 messages in at least eight languages, more than a third with nothing to find."""
    sample = read_sample()
    assert len(sample) >= 300
    assert len({message.language for message in sample}) >= 8
    assert sum(not message.marks for message in sample) > len(sample) / 3


@pytest.mark.parametrize("kind", STRUCTURED)
def test_every_value_with_a_checkable_shape_is_found(found: Report, kind: Kind) -> None:
    """Recall of the structured kinds is complete, of at least ten values each."""
    score = found.scores[kind]
    assert score.marked >= 10
    assert score.missed == []


@pytest.mark.parametrize("kind", list(FLOORS))
def test_names_and_streets_are_found_by_their_cues(found: Report, kind: Kind) -> None:
    """Recall of what has no shape stays above its floor."""
    assert found.scores[kind].figures()["recall"] >= FLOORS[kind]


def test_hardly_anything_is_hit_by_mistake(found: Report) -> None:
    """At most one finding in the sample meets no mark."""
    assert len(found.false_hits) <= MOST_FALSE_HITS, found.false_hits


def test_real_ordering_turns_have_names_only() -> None:
    """In real orders nothing is found but names that visitors gave."""
    turns = ordering_turns(ROOT)
    if turns is None:
        pytest.skip("the ordering dialogues are not beside this checkout")
    assert set(hits_in(turns, Redactor())) <= {Kind.NAME}


@pytest.mark.parametrize("kind", ["email", "national_id", "phone", "ip"])
def test_a_kind_that_is_not_looked_for_is_missed(kind: Literal["email", "national_id", "phone", "ip"]) -> None:
    """Were one of the checks gone, the thresholds above would not hold."""
    without = compare(read_sample(), Redactor(policy=RedactionPolicy(keep=(kind,))))
    assert without.scores[kind].missed


def test_a_miss_and_a_false_hit_are_seen() -> None:
    """The comparison tells a value that was not found and a finding that should not be."""
    sample = [labelled("en", "ask {{name:Jo}} at 1 {{email:a@example.com}}"), labelled("en", "b@example.com")]
    assert sample[0].marks[0] == Span(4, 6, Kind.NAME)
    assert sample[0].text == "ask Jo at 1 a@example.com"
    report = compare(sample, Redactor())
    assert report.scores[Kind.NAME].figures() == {"marked": 1, "recall": 0.0, "precision": 1.0}
    assert report.scores[Kind.EMAIL].figures() == {"marked": 1, "recall": 1.0, "precision": 0.5}
    assert len(report.false_hits) == 1
