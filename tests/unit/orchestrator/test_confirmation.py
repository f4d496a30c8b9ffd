"""The confirmation of a route."""

from dataclasses import replace

import pytest

from schemas.agents import Agent
from schemas.briefs import BuyingPhase, Risk
from schemas.knowledge import RetrievalState, Retrieved
from schemas.routing_policy import RoutingPolicy
from workers.orchestrator.confirmation import Case, confirm
from workers.orchestrator.finding import Finding

FOUND = Finding(
    agent=Agent.SUPPORT, why="a rule", confidence=0.9, router="rules-1", phase=BuyingPhase.CUSTOMER, problem=True
)

NOTHING_KNOWN = Retrieved()


def confirmed(finding: Finding, retrieved: Retrieved = NOTHING_KNOWN, *, first: bool = False) -> Agent:
    """Return who answers."""
    return confirm(Case(finding, retrieved, RoutingPolicy(), Agent.DISCOVERY, first))[0]


@pytest.mark.parametrize(
    ("state", "answerable", "agent"),
    [
        ("found", True, Agent.SUPPORT),
        ("found", False, Agent.TECHNICAL_CONSULTANT),
        ("nothing", False, Agent.TECHNICAL_CONSULTANT),
        ("off", False, Agent.SUPPORT),
        ("late", False, Agent.SUPPORT),
        ("failed", False, Agent.SUPPORT),
    ],
)
def test_support_needs_an_answer_in_the_knowledge_base(state: RetrievalState, answerable: bool, agent: Agent) -> None:
    """Without one a customer in trouble is helped by the consultant; what nobody knows changes no route."""
    assert confirmed(FOUND, Retrieved(state=state, answerable=answerable)) is agent


def test_without_a_problem_support_without_an_answer_is_discovery() -> None:
    """A buyer who reports nothing is asked what they need."""
    finding = replace(FOUND, problem=False, phase=BuyingPhase.DISCOVERY)
    assert confirmed(finding, Retrieved(state="nothing")) is Agent.DISCOVERY


def test_a_repetition_goes_to_adaptive_response() -> None:
    """Whoever was chosen, a question that was answered before is adaptive response's."""
    assert confirmed(replace(FOUND, repeats=2)) is Agent.ADAPTIVE_RESPONSE
    assert confirmed(replace(FOUND, agent=Agent.TECHNICAL_CONSULTANT, repeats=1)) is Agent.ADAPTIVE_RESPONSE


def test_nothing_is_adapted_before_anything_was_answered() -> None:
    """Adaptive response at the beginning of a conversation is discovery; later it stays."""
    finding = replace(FOUND, agent=Agent.ADAPTIVE_RESPONSE)
    assert confirmed(finding, first=True) is Agent.DISCOVERY
    assert confirmed(finding) is Agent.ADAPTIVE_RESPONSE


def test_who_is_not_sure_asks() -> None:
    """Below the policy's threshold the default agent answers."""
    unsure = RoutingPolicy().unsure - 0.01
    assert confirmed(replace(FOUND, agent=Agent.CONTENT_GENERATOR, confidence=unsure)) is Agent.DISCOVERY


@pytest.mark.parametrize("risk", [Risk.SPAM, Risk.ABUSE])
def test_what_is_unwelcome_costs_little(risk: Risk) -> None:
    """Spam and abuse go to the most constrained agent, whatever else was found."""
    assert confirmed(replace(FOUND, risk=risk, repeats=1)) is Agent.DISCOVERY


def test_a_change_says_what_was_changed_and_why() -> None:
    """The reason names the rule, the agent it overruled, and that one's reason; without a change it is the router's."""
    case = Case(FOUND, Retrieved(state="nothing"), RoutingPolicy(), Agent.DISCOVERY, first=False)
    _, why = confirm(case)
    assert why == ("the knowledge base has no answer for support, and somebody is in trouble; support by a rule")
    assert confirm(replace(case, retrieved=Retrieved()))[1] == "a rule"
