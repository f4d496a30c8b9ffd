"""Which message a key stands for. Reserved before the event is produced, so that it survives everything."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import row
from schemas.ids import TurnId

# The update changes nothing; it makes the row that was there first come back, even one committed this instant.
_RESERVE: Final = text("""
INSERT INTO idempotency AS i (tenant_id, key, body_sha256, conversation_id, turn_id)
VALUES (:tenant, :key, :digest, :conversation, CAST(:turn_id AS uuid))
ON CONFLICT (tenant_id, key) DO UPDATE SET key = i.key
RETURNING i.body_sha256, i.turn_id::text AS turn_id, (xmax = 0) AS fresh
""")

_KNOWN: Final = text("""
SELECT conversation_id FROM idempotency WHERE tenant_id = :tenant AND turn_id = CAST(:turn_id AS uuid) LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class Reserved:
    """The key is new: it now stands for this message."""


@dataclass(frozen=True, slots=True)
class SameMessage:
    """The key already stands for the very same message."""

    turn_id: TurnId


@dataclass(frozen=True, slots=True)
class OtherMessage:
    """The key already stands for a message with other content."""


Reservation = Reserved | SameMessage | OtherMessage


async def reserve(
    engine: AsyncEngine, *, tenant: str, key: str, body_sha256: str, conversation: str, turn_id: TurnId
) -> Reservation:
    """Let `key` stand for this message unless it stands for one already; one statement.

    Raises:
        LedgerUnavailable: nothing is known about the key.
    """
    values = {
        "tenant": tenant,
        "key": key,
        "digest": body_sha256,
        "conversation": conversation,
        "turn_id": turn_id,
    }
    found = await row(engine, _RESERVE, values)
    if found is None or found["fresh"]:
        return Reserved()
    if found["body_sha256"] == body_sha256:
        return SameMessage(TurnId(found["turn_id"]))
    return OtherMessage()


async def reserved_conversation(engine: AsyncEngine, *, tenant: str, turn_id: TurnId) -> str | None:
    """Return the conversation of a turn that a key of this tenant stands for, recorded or not.

    Raises:
        LedgerUnavailable: nothing is known about the turn.
    """
    found = await row(engine, _KNOWN, {"tenant": tenant, "turn_id": turn_id})
    return str(found["conversation_id"]) if found else None
