"""The JSON shape of an answer. The first key is decided before any visible text exists."""

from typing import Final

from pydantic import JsonValue

from infra.postgres.claims import Claim
from schemas.agents import Agent
from workers.agents.discovery import answer as discovery

_OTHER: Final[dict[Agent, str]] = {
    Agent.SUPPORT: "support",
    Agent.TECHNICAL_CONSULTANT: "technical",
    Agent.ADAPTIVE_RESPONSE: "adaptive",
    Agent.CONTENT_GENERATOR: "content",
}


def answer_schema(claim: Claim) -> dict[str, JsonValue]:
    """Return the JSON Schema that constrains the output for this turn."""
    if claim.agent is Agent.DISCOVERY:
        return discovery.schema(claim)
    dimensions = (_OTHER[claim.agent],)
    return {
        "type": "object",
        "properties": {
            "dimension": {"type": "string", "enum": list(dimensions)},
            "html_response": {"type": "string"},
        },
        "required": ["dimension", "html_response"],
        "additionalProperties": False,
    }
