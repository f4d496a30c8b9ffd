"""The seven agents, and the Celery lanes they work on."""

from enum import StrEnum


class Agent(StrEnum):
    """Who answers a turn. The orchestrator and the researcher work for the others and own no lane."""

    ORCHESTRATOR = "orchestrator"
    DISCOVERY = "discovery"
    RESEARCHER = "researcher"
    SUPPORT = "support"
    TECHNICAL_CONSULTANT = "technical_consultant"
    ADAPTIVE_RESPONSE = "adaptive_response"
    CONTENT_GENERATOR = "content_generator"


class Lane(StrEnum):
    """A Celery queue. One per answering agent, and one for turns whose own lane could not answer."""

    DISCOVERY = "agent.discovery"
    SUPPORT = "agent.support"
    TECHNICAL_CONSULTANT = "agent.technical_consultant"
    ADAPTIVE_RESPONSE = "agent.adaptive_response"
    CONTENT_GENERATOR = "agent.content_generator"
    FRONTIER_FALLBACK = "agent.frontier_fallback"


ANSWERING: tuple[Agent, ...] = (
    Agent.DISCOVERY,
    Agent.SUPPORT,
    Agent.TECHNICAL_CONSULTANT,
    Agent.ADAPTIVE_RESPONSE,
    Agent.CONTENT_GENERATOR,
)
"""The agents that may be routed to."""


def lane_of(agent: Agent) -> Lane:
    """Return the lane an answering agent works on.

    Raises:
        ValueError: the agent answers no turns itself.
    """
    return Lane(f"agent.{agent}")
