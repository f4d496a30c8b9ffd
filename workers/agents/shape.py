"""The JSON shape of an answer, and why one breaks its agent's rules: each agent's folder says both for itself."""

from collections.abc import Mapping
from typing import Final, Protocol

from infra.postgres.claims import Claim
from schemas.agents import Agent
from workers.agents.adaptive_response import answer as adaptive_response
from workers.agents.content_generator import answer as content_generator
from workers.agents.discovery import answer as discovery
from workers.agents.support import answer as support
from workers.agents.technical_consultant import answer as technical_consultant
from workers.agents.written import Schema, Written


class Shape(Protocol):
    """What an agent's `answer.py` holds. The first key of the shape is decided before any visible text exists."""

    def schema(self, claim: Claim) -> Schema:
        """Return the JSON Schema that constrains the answer to this turn."""
        ...


class Grounded(Shape, Protocol):
    """The same of the agents that answer from the knowledge base."""

    def problem(self, claim: Claim, written: Written) -> str | None:
        """Return why what is written so far breaks the agent's rules, in a sentence; None if it does not."""
        ...


_GROUNDED: Final[Mapping[Agent, Grounded]] = {
    Agent.SUPPORT: support,
    Agent.TECHNICAL_CONSULTANT: technical_consultant,
    Agent.ADAPTIVE_RESPONSE: adaptive_response,
    Agent.CONTENT_GENERATOR: content_generator,
}


def answer_schema(claim: Claim) -> Schema:
    """Return the JSON Schema that constrains the output for this turn."""
    shapes: Mapping[Agent, Shape] = {Agent.DISCOVERY: discovery, **_GROUNDED}
    return shapes[claim.agent].schema(claim)


def problem_of(claim: Claim, written: Written) -> str | None:
    """Return why what is written so far breaks the rules of the turn's agent; None if it does not."""
    rules = _GROUNDED.get(claim.agent)
    return rules.problem(claim, written) if rules is not None else None
