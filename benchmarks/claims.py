"""A turn as a worker claims it, without a ledger: for what looks at prompts and answers only."""

from dataclasses import replace
from typing import Final

from infra.postgres.claims import Claim
from infra.postgres.inbox import PastTurn
from schemas.agents import Agent
from schemas.briefs import NO_BRIEF, Brief
from schemas.ids import TurnId
from schemas.knowledge import Passage, Retrieved

_BARE: Final = Claim(
    turn_id=TurnId("00000000-0000-0000-0000-000000000001"),
    tenant="acme",
    conversation_id="c1",
    seq=1,
    epoch=1,
    channel="api",
    text="",
    agent=Agent.DISCOVERY,
    ordinal=1,
    model="frontier",
    fallback="frontier-lite",
    created=0,
    waited=0.0,
    remaining=60.0,
    age=0.0,
    past=(),
    brought=(),
    traceparent=None,
)


def claim_of(
    agent: Agent,
    text: str,
    *,
    brief: Brief = NO_BRIEF,
    past: tuple[PastTurn, ...] = (),
    brought: tuple[tuple[str, str], ...] = (),
) -> Claim:
    """Return the turn."""
    return replace(_BARE, agent=agent, text=text, brief=brief, past=past, brought=brought, seq=len(past) + 1)


def found(*passages: Passage, answerable: bool = True, language: str = "en") -> Brief:
    """Return a brief whose knowledge base holds `passages`."""
    retrieved = Retrieved(state="found", passages=passages, answerable=answerable, score=0.9, snapshot="1")
    return Brief(language=language, retrieved=retrieved)
