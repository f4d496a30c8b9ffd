"""The shape of a discovery answer."""

from typing import Final

from infra.postgres.claims import Claim
from workers.agents.written import Schema

DIMENSIONS: Final = ("pain_points", "timeline", "budget", "decision_process", "current_solution", "team")
"""What discovery may ask about."""


def schema(claim: Claim) -> Schema:
    """Return the shape: a dimension, then the question about it."""
    del claim
    return {
        "type": "object",
        "properties": {
            "dimension": {"type": "string", "enum": list(DIMENSIONS)},
            "html_response": {"type": "string"},
        },
        "required": ["dimension", "html_response"],
        "additionalProperties": False,
    }
