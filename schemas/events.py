"""What Kafka carries. The JSON Schemas in `docs/schemas` are generated from these models."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from schemas.agents import Agent
from schemas.ids import ConversationId, TenantId
from schemas.turns import MAX_HISTORY, Channel, HistoryMessage, MessageText, small_metadata

TYPE_TURN_SUBMITTED = "io.fairlead.turn.submitted.v1"
TYPE_TURN_SETTLED = "io.fairlead.turn.settled.v1"

Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class TurnSubmitted(BaseModel):
    """A message was accepted from a channel. Topic `fairlead.turns`, key `tenant:conversation`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    turn_id: Uuid
    tenant_id: TenantId
    conversation_id: ConversationId
    channel: Channel
    text: MessageText
    metadata: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    history: tuple[HistoryMessage, ...] = Field(default=(), max_length=MAX_HISTORY)
    body_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Digest of the message, so that one key with two contents is seen."""

    @field_validator("metadata")
    @classmethod
    def _storable(cls, metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
        json.dumps(metadata, allow_nan=False)  # a ValueError for a number JSON has no word for
        return small_metadata(metadata)


class TurnSettled(BaseModel):
    """A turn reached its end. Topic `fairlead.results`, same key as the turn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    turn_id: Uuid
    tenant_id: TenantId
    conversation_id: ConversationId
    seq: Annotated[int, Field(ge=1)]
    """Position in the conversation, from 1."""
    channel: Channel
    state: Literal["answered", "truncated", "bounded", "handed_off", "cancelled", "rejected", "parked"]
    agent: Agent | None
    source: Literal["primary", "fallback", "offline", "human", "none"]
    """Which model call the answer came from."""
    """Which model call the answer came from; `human`: it is a message of a person's own."""
    html: str
    text: str
    reason: str | None = None
    """Why the turn did not end `answered`; `coalesced` where its answer is another turn's, `taken_over` where a person
    had the conversation and answers it, or not, in a turn of their own."""
    answered_in: Uuid | None = None
    """The earlier turn whose answer is also this one's; its own `html` and `text` are empty then."""
    settled_at: str
    """RFC 3339, UTC."""
