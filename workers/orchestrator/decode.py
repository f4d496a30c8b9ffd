"""A Kafka record as an event, or the reason why it is none. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from schemas.dead_letters import DeadLetterReason
from schemas.envelope import text_headers
from schemas.events import TYPE_TURN_SUBMITTED, TurnSubmitted
from schemas.names import partition_key

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}(?:-[0-9a-f]{1,64}){3}")


@dataclass(frozen=True, slots=True)
class Undecodable:
    """The record goes to the dead-letter topic whole."""

    reason: DeadLetterReason
    error: str
    """What is wrong, without any of the content."""


def decode(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> tuple[TurnSubmitted, str | None] | Undecodable:
    """Return the event and its `traceparent`, or why the record is no event."""
    named = text_headers(headers)
    kind = named.get("ce_type")
    if kind is not None and kind != TYPE_TURN_SUBMITTED:
        return Undecodable(DeadLetterReason.SCHEMA_VIOLATION, f"ce_type is not {TYPE_TURN_SUBMITTED}")
    if not value:
        return Undecodable(DeadLetterReason.UNDECODABLE, "the record has no value")
    try:
        event = TurnSubmitted.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        json_broken = first["type"] == "json_invalid"
        where = ".".join(map(str, first["loc"])) or "value"
        reason = DeadLetterReason.UNDECODABLE if json_broken else DeadLetterReason.SCHEMA_VIOLATION
        return Undecodable(reason, f"{where}: {first['type']}")
    if key != partition_key(event.tenant_id, event.conversation_id).encode():
        # Under another key the turns of a conversation could overtake each other.
        return Undecodable(DeadLetterReason.SCHEMA_VIOLATION, "the key is not tenant:conversation of the event")
    trace = named.get("traceparent", "")
    return event, trace if _TRACEPARENT.fullmatch(trace) else None
