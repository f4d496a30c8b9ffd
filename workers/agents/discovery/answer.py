"""The shape of a discovery answer: a dimension that is still open, then what the visitor reads."""

from collections.abc import Sequence

from pydantic import JsonValue

from infra.postgres.claims import Claim
from schemas.agents import Agent
from workers.agents.discovery.taxonomy import taxonomy


def schema(claim: Claim) -> dict[str, JsonValue]:
    """Return the JSON Schema of this turn: what is known or was asked is no member of it, so that none repeats."""
    return schema_of(open_dimensions(claim))


def open_dimensions(claim: Claim) -> tuple[str, ...]:
    """Return what may be asked in this turn, the most urgent first; the next steps alone when nothing is left."""
    known = {fact.dimension for fact in claim.brief.facts}
    asked = {turn.dimension for turn in claim.past if turn.agent is Agent.DISCOVERY and turn.dimension is not None}
    signals = [signal.kind for signal in claim.brief.signals]
    return taxonomy().open(closed=known | asked, text=claim.text, signals=signals)


def schema_of(dimensions: Sequence[str] = ()) -> dict[str, JsonValue]:
    """Return the JSON Schema of an answer about one of `dimensions`, or of all."""
    return {
        "type": "object",
        "properties": {
            "dimension": {"type": "string", "enum": list(dimensions or taxonomy().open())},
            "html_response": {"type": "string"},
        },
        "required": ["dimension", "html_response"],
        "additionalProperties": False,
    }
