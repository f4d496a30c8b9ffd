"""What a visitor may send, and the life of a turn as data."""

import json
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, field_validator

MAX_TEXT: Final = 16_000
"""Characters of one message. About 4,000 tokens: more than any agent's input budget."""

MAX_METADATA_BYTES: Final = 4_096
MAX_HISTORY: Final = 200

Channel = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
"""Where a message came from: `web_chat`, `api`, `openai`, `slack`, `batch`, …"""

CHANNEL_OPENAI: Final = "openai"
"""Of OpenAI's door, where every request waits for an answer of its own."""


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("text must not contain the NUL character; remove it and send again")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("text is empty; send at least one visible character")
    return text


MessageText = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_no_nul), AfterValidator(_not_blank)
]


class HistoryMessage(BaseModel):
    """One earlier message that a channel brings along, oldest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["user", "assistant"]
    text: Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_no_nul)]


class TurnRequest(BaseModel):
    """The body of `POST /v1/conversations/{id}/turns`: one message of a buyer."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"text": "Hi, we lose track of stock."}]}
    )

    text: MessageText
    channel: Channel = "api"
    metadata: dict[Annotated[str, Field(max_length=64)], JsonValue] = Field(
        default_factory=dict[str, JsonValue], max_length=64
    )

    @field_validator("metadata")
    @classmethod
    def _small(cls, metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
        return small_metadata(metadata)


def small_metadata(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return `metadata` as it is.

    Raises:
        ValueError: it is too large, or the ledger could not hold it.
    """
    encoded = json.dumps(metadata)
    if len(encoded) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata is larger than {MAX_METADATA_BYTES} bytes as JSON; send references instead")
    if "\\u0000" in encoded:
        raise ValueError("metadata must not contain the NUL character")
    return metadata


class TurnState(StrEnum):
    """Where a turn stands. See `TRANSITIONS` for what may follow what."""

    RECEIVED = "received"
    PREPARING = "preparing"
    QUEUED = "queued"
    RUNNING = "running"
    FALLBACK = "fallback"
    STREAMING = "streaming"
    SEALING = "sealing"
    RESCUE = "rescue"
    PARKED = "parked"
    ANSWERED = "answered"
    TRUNCATED = "truncated"
    BOUNDED = "bounded"
    HANDED_OFF = "handed_off"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


TERMINAL: Final = frozenset(
    {
        TurnState.ANSWERED,
        TurnState.TRUNCATED,
        TurnState.BOUNDED,
        TurnState.HANDED_OFF,
        TurnState.CANCELLED,
        TurnState.REJECTED,
        TurnState.PARKED,
    }
)
"""States in which the visitor has been told how the turn ended. `parked` also waits for an operator."""

_S = TurnState
_LEAVING: Final = frozenset({_S.BOUNDED, _S.HANDED_OFF, _S.CANCELLED})

TRANSITIONS: Final[dict[TurnState, frozenset[TurnState]]] = {
    # A coalesced turn ends as its head does.
    _S.RECEIVED: frozenset({_S.PREPARING, _S.REJECTED, _S.ANSWERED, _S.TRUNCATED}) | _LEAVING,
    # What a person writes is answered by it.
    _S.PREPARING: frozenset({_S.PREPARING, _S.QUEUED, _S.ANSWERED, _S.REJECTED}) | _LEAVING,
    # Once a person has the conversation, its turn is taken back, to be handed off.
    _S.QUEUED: frozenset({_S.RUNNING, _S.FALLBACK, _S.RESCUE, _S.PREPARING}) | _LEAVING,
    _S.RUNNING: frozenset({_S.FALLBACK, _S.STREAMING, _S.ANSWERED, _S.RESCUE, _S.PREPARING}) | _LEAVING,
    _S.FALLBACK: frozenset({_S.STREAMING, _S.ANSWERED, _S.RESCUE, _S.PREPARING}) | _LEAVING,
    _S.STREAMING: frozenset({_S.ANSWERED, _S.TRUNCATED, _S.SEALING}),
    _S.SEALING: frozenset({_S.ANSWERED, _S.TRUNCATED, _S.RESCUE}) | _LEAVING,
    _S.RESCUE: frozenset({_S.FALLBACK, _S.PARKED, _S.PREPARING}) | _LEAVING,
    **{state: frozenset[TurnState]() for state in TERMINAL},
}
"""Every allowed step. Terminal states absorb."""

OPEN: Final = frozenset(TurnState) - TERMINAL
