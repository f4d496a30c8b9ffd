"""The last word on a route: a table of rules over what was found and what was retrieved. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from schemas.agents import Agent
from schemas.briefs import BuyingPhase, Risk
from schemas.knowledge import Retrieved
from schemas.routing_policy import RoutingPolicy
from workers.orchestrator.finding import Finding

UNWELCOME: Final = (Risk.ABUSE, Risk.SPAM)


@dataclass(frozen=True, slots=True)
class Case:
    """What the rules look at."""

    finding: Finding
    retrieved: Retrieved
    policy: RoutingPolicy
    default: Agent
    first: bool
    """Whether nothing has been answered in the conversation yet."""

    @property
    def unanswerable(self) -> bool:
        """Whether the knowledge base was read and holds no answer. Late, failed or absent it says nothing."""
        return self.retrieved.state in ("found", "nothing") and not self.retrieved.answerable

    @property
    def troubled(self) -> bool:
        """Whether somebody who has the product is in trouble: their pains are known, and need no asking."""
        return self.finding.problem or self.finding.phase is BuyingPhase.CUSTOMER


@dataclass(frozen=True, slots=True)
class Rule:
    """When it applies, who answers then instead, and why."""

    applies: Callable[[Case], bool]
    agent: Callable[[Case], Agent]
    why: str


TABLE: Final = (
    # What the policy does not refuse is answered, shortly, by the agent whose answer is the cheapest and the most
    # constrained. The risk is in its brief.
    Rule(
        lambda case: case.finding.risk in UNWELCOME,
        lambda _: Agent.DISCOVERY,
        "the message is unwelcome, so it gets one polite sentence",
    ),
    Rule(
        lambda case: case.finding.repeats is not None,
        lambda _: Agent.ADAPTIVE_RESPONSE,
        "the question was answered before",
    ),
    Rule(
        lambda case: case.finding.confidence < case.policy.unsure,
        lambda case: case.default,
        "no router is sure, so needs are asked for",
    ),
    Rule(
        lambda case: case.finding.agent is Agent.ADAPTIVE_RESPONSE and case.first,
        lambda case: case.default,
        "nothing was answered before",
    ),
    Rule(
        lambda case: case.finding.agent is Agent.SUPPORT and case.unanswerable and case.troubled,
        lambda _: Agent.TECHNICAL_CONSULTANT,
        "the knowledge base has no answer for support, and somebody is in trouble",
    ),
    Rule(
        lambda case: case.finding.agent is Agent.SUPPORT and case.unanswerable,
        lambda _: Agent.DISCOVERY,
        "the knowledge base has no answer for support, and nobody reports a problem",
    ),
)
"""In order: the first that applies decides. A rule whose agent was chosen anyway changes nothing."""


def confirm(case: Case) -> tuple[Agent, str]:
    """Return who answers, and why in words for operators."""
    finding = case.finding
    for rule in TABLE:
        if rule.applies(case):
            agent = rule.agent(case)
            return agent, finding.why if agent is finding.agent else f"{rule.why}; {finding.agent} by {finding.why}"
    return finding.agent, finding.why
