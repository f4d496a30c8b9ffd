"""What a client may send over the socket of a conversation."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from schemas.events import Uuid
from schemas.turns import Channel

MAX_MESSAGE_BYTES: Final = 16_384


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AuthMessage(_Message):
    """The credential, when the handshake carried none; later, a fresh one before the old one ends."""

    type: Literal["auth"]
    token: Annotated[str, Field(min_length=1, max_length=4_096, repr=False)]


class TurnMessage(_Message):
    """One message of the buyer. `id` names it within the conversation: sent again it is the same turn."""

    type: Literal["turn"]
    id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")]
    text: Annotated[str, Field(repr=False)]
    channel: Channel = "web_chat"
    metadata: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue], repr=False)
    ack: bool = False
    """Whether to answer `{"type": "accepted", "id", "turn_id", "duplicate"}` before the frames."""


class ResumeMessage(_Message):
    """Go on with a turn after frame `seq`; -1 tells it from its start."""

    type: Literal["resume"]
    turn_id: Uuid
    seq: Annotated[int, Field(ge=-1, le=1_000_000)] = -1


class PingMessage(_Message):
    """Answered with `{"type": "pong"}`."""

    type: Literal["ping"]


ClientMessage = AuthMessage | TurnMessage | ResumeMessage | PingMessage

client_message: Final[TypeAdapter[ClientMessage]] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])
"""Reads one message from JSON."""
