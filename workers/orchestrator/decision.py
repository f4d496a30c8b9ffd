"""The shape in which the frontier writes its decision, and what it is read as."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from schemas.agents import ANSWERING, Agent
from schemas.briefs import BuyingPhase, Risk, Share, SignalKind
from schemas.completions import Malformed

NAME: Final = "routing"

SCHEMA: Final[dict[str, JsonValue]] = {
    "type": "object",
    "properties": {
        "phase": {"type": "string", "enum": [phase.value for phase in BuyingPhase]},
        "language": {"type": "string"},
        "intent": {"type": "string"},
        "buying_signals": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "kind": {"type": "string", "enum": [kind.value for kind in SignalKind]},
                    "quote": {"type": "string"},
                },
            },
        },
        "repeat_of": {"type": ["integer", "null"]},
        "risk": {"type": "string", "enum": [risk.value for risk in Risk]},
        "agent": {"type": "string", "enum": [agent.value for agent in ANSWERING]},
        "confidence": {"type": "number"},
        "reason": {"type": "string"},
    },
}
"""What comes first is decided first: the agent follows from what was found."""


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=False)


class Signal(_Read):
    """A buying signal as the model wrote it."""

    kind: SignalKind
    quote: str = ""


class Decision(_Read):
    """What the model decided. Its words are untrusted: they may be the visitor's."""

    phase: BuyingPhase
    language: Annotated[str, Field(max_length=16)]
    intent: str
    buying_signals: tuple[Signal, ...]
    repeat_of: int | None
    risk: Risk
    agent: Literal[
        Agent.DISCOVERY,
        Agent.SUPPORT,
        Agent.TECHNICAL_CONSULTANT,
        Agent.ADAPTIVE_RESPONSE,
        Agent.CONTENT_GENERATOR,
    ]
    confidence: Share
    reason: str


def read(written: bytes) -> Decision:
    """Return the decision.

    Raises:
        Malformed: it is not of the shape.
    """
    try:
        return Decision.model_validate_json(written)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the decision"
        raise Malformed(f"the frontier's decision does not fit: {where}: {first['type']}") from None
