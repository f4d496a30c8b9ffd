"""The rule router."""

import pytest

from infra.postgres.inbox import PastTurn, Prepared
from schemas.agents import Agent
from schemas.ids import TurnId
from workers.orchestrator.rules import RuleRouter


def _turn(text: str, *asked: str) -> Prepared:
    past = tuple(PastTurn(question, "<p>An answer.</p>", Agent.DISCOVERY) for question in asked)
    return Prepared(
        turn_id=TurnId("t"), tenant="acme", conversation_id="c", seq=1, epoch=1, text=text, channel="test",
        past=past, brought=(), traceparent=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "agent"),
    [
        ("Hi, we lose track of stock between two warehouses", Agent.DISCOVERY),
        ("What would it cost for forty people?", Agent.DISCOVERY),
        ("The export is not working since this morning", Agent.SUPPORT),
        ("I can't log in", Agent.SUPPORT),
        ("Does your API support webhooks for inventory changes?", Agent.TECHNICAL_CONSULTANT),
        ("Is there SSO with SAML?", Agent.TECHNICAL_CONSULTANT),
        ("Could you write up a one-pager for my boss?", Agent.CONTENT_GENERATOR),
        ("¿Cuánto cuesta?", Agent.DISCOVERY),
        ("", Agent.DISCOVERY),
    ],
)
def test_a_message_goes_to_the_agent_its_words_ask_for(text: str, agent: Agent) -> None:
    """Rules over the message decide; what they do not know goes to discovery."""
    assert RuleRouter().judge(_turn(text)).agent is agent


def test_a_question_asked_again_goes_to_adaptive_response() -> None:
    """The same words as in an answered turn of the conversation are a repetition; new words are not."""
    router = RuleRouter()
    again = _turn("How long does the rollout take?", "Hello", "so how long does the rollout take??")
    assert router.judge(again).agent is Agent.ADAPTIVE_RESPONSE
    assert router.judge(_turn("Who else uses it?", "How long does it take?")).agent is Agent.DISCOVERY
