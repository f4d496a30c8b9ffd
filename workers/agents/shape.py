"""The JSON shape of an answer. The first key is decided before any visible text exists."""

from typing import Final

from pydantic import JsonValue

from schemas.agents import Agent

DIMENSIONS: Final = ("pain_points", "timeline", "budget", "decision_process", "current_solution", "team")
"""What discovery may ask about."""

_OTHER: Final[dict[Agent, str]] = {
    Agent.SUPPORT: "support",
    Agent.TECHNICAL_CONSULTANT: "technical",
    Agent.ADAPTIVE_RESPONSE: "adaptive",
    Agent.CONTENT_GENERATOR: "content",
}


def answer_schema(agent: Agent) -> dict[str, JsonValue]:
    """Return the JSON Schema that constrains the agent's output."""
    dimensions = DIMENSIONS if agent is Agent.DISCOVERY else (_OTHER[agent],)
    return {
        "type": "object",
        "properties": {
            "dimension": {"type": "string", "enum": list(dimensions)},
            "html_response": {"type": "string"},
        },
        "required": ["dimension", "html_response"],
        "additionalProperties": False,
    }
