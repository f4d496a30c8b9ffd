"""The shapes of answers, and what breaks each agent's rules."""

import pytest
from jsonschema import Draft202012Validator

from benchmarks.claims import claim_of, found
from infra.postgres.inbox import PastTurn
from schemas.agents import ANSWERING, Agent
from schemas.answer_policy import AnswerPolicy
from schemas.briefs import Brief
from schemas.knowledge import Passage, Retrieved
from workers.agents.adaptive_response.answer import overlap, rephrases
from workers.agents.shape import answer_schema, problem_of
from workers.agents.written import Written

ONE = Passage(passage_id="p1", source="https://docs.example/1", text="Hold the button.")
TWO = Passage(passage_id="p2", source="https://docs.example/2", text="Press it twice.")
CITING = [Agent.SUPPORT, Agent.TECHNICAL_CONSULTANT, Agent.ADAPTIVE_RESPONSE]
CLAIMS = {Agent.SUPPORT: "support", Agent.TECHNICAL_CONSULTANT: "technical", Agent.ADAPTIVE_RESPONSE: "adaptive"}
UNKNOWN = {Agent.SUPPORT: "not_found", Agent.TECHNICAL_CONSULTANT: "not_found", Agent.ADAPTIVE_RESPONSE: "nothing_new"}


@pytest.mark.parametrize("agent", ANSWERING)
def test_the_decision_comes_before_the_text(agent: Agent) -> None:
    """In every shape `dimension` is the first key, sources come before the text, and all keys are required."""
    schema = answer_schema(claim_of(agent, "How?", brief=found(ONE, TWO)))
    Draft202012Validator.check_schema(schema)
    properties = schema["properties"]
    assert isinstance(properties, dict)
    keys = list(properties)
    assert keys[0] == "dimension"
    assert schema["required"] == keys
    if "citations" in keys:
        assert keys.index("citations") < keys.index("html_response")
        assert properties["citations"] == {"type": "array", "items": {"type": "integer", "enum": [1, 2]}}


@pytest.mark.parametrize("agent", CITING)
@pytest.mark.parametrize("state", ["off", "nothing", "late", "failed"])
def test_without_the_knowledge_base_nothing_may_be_claimed(agent: Agent, state: str) -> None:
    """Whatever kept the passages away, the only allowed decision is that it is not known."""
    claim = claim_of(agent, "How?", brief=Brief(retrieved=Retrieved.model_validate({"state": state})))
    properties = answer_schema(claim)["properties"]
    assert isinstance(properties, dict)
    assert properties["dimension"] == {"type": "string", "enum": [UNKNOWN[agent]]}
    assert "citations" not in properties
    assert problem_of(claim, Written({"dimension": UNKNOWN[agent]})) is None
    assert problem_of(claim, Written({"dimension": CLAIMS[agent], "citations": [1]})) is not None
    assert problem_of(claim, Written({})) is not None


@pytest.mark.parametrize("agent", CITING)
def test_a_claim_needs_a_source_that_exists(agent: Agent) -> None:
    """An answer that cites nothing, or only what it invented, breaks the rules; one that cites a passage does not."""
    claim = claim_of(agent, "How?", brief=found(ONE, TWO))
    for invented in ([], [0], [3], [-1], ["1"], [True], [1.0], None, "1"):
        assert problem_of(claim, Written({"dimension": CLAIMS[agent], "citations": invented})) is not None  # pyright: ignore[reportArgumentType] # what a model may write
    assert problem_of(claim, Written({"dimension": CLAIMS[agent], "citations": [7, 2]})) is None


def test_support_does_not_answer_what_the_gate_says_is_not_there() -> None:
    """Passages that probably hold no answer are no licence to give one."""
    claim = claim_of(Agent.SUPPORT, "How?", brief=found(ONE, answerable=False))
    assert problem_of(claim, Written({"dimension": "support", "citations": [1]})) is not None
    assert problem_of(claim, Written({"dimension": "not_found"})) is None


def test_invented_numbers_are_dropped_and_repeated_ones_count_once() -> None:
    """Of what a model cites only numbers of passages it was shown remain, in its order."""
    assert Written({"citations": [9, 2, 1, 2, 0, True, "1"]}).citations(2) == (2, 1)
    assert Written({}).citations(2) == ()


def test_a_rephrased_answer_is_told_from_a_new_one() -> None:
    """The share of word runs that earlier answers had separates the same facts in the same words from new ones."""
    earlier = "Setting up takes two weeks as a rule, because the scanners have to be paired one by one."
    again = "As a rule setting up takes two weeks, because the scanners have to be paired one by one."
    other = "What decides it is who takes part: a site lead, one person for the network, and a trainer."
    assert overlap(again, [earlier], words=3) > 0.7
    assert overlap(other, [earlier], words=3) < 0.1
    assert overlap("two words", [earlier], words=3) == 0
    past = (PastTurn("How long?", f"<p>{earlier}</p>", Agent.SUPPORT, 1),)
    claim = claim_of(Agent.ADAPTIVE_RESPONSE, "How long?", brief=found(ONE), past=past)
    policy = AnswerPolicy()
    assert rephrases(claim, Written({"dimension": "adaptive"}, again), policy) is not None
    assert rephrases(claim, Written({"dimension": "adaptive"}, other), policy) is None
    assert rephrases(claim, Written({"dimension": "nothing_new"}, again), policy) is None
