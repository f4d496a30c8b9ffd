"""Typed identifiers. A turn's id is derived, so that the same message is the same turn everywhere."""

import secrets
import uuid
from typing import Annotated, NewType

from pydantic import StringConstraints

TurnId = NewType("TurnId", str)
"""A UUID in its 36-character form."""

TENANT_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
CONVERSATION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$"

TenantId = Annotated[str, StringConstraints(pattern=TENANT_PATTERN)]
"""A customer of this installation. Has no colon, so that `tenant:conversation` splits one way."""

ConversationId = Annotated[str, StringConstraints(pattern=CONVERSATION_PATTERN)]
"""Chosen by the channel; unique within its tenant."""

_NAMESPACE = uuid.UUID("6f1c0d3e-6f0a-5a3c-9b8e-0d6a4f4b2c11")


def turn_id_for(tenant: str, key: str) -> TurnId:
    """Return the id of the turn that this tenant's idempotency `key` names, the same on every machine.

    The conversation is not part of the identity: one key is one turn, whichever conversation repeats it.
    """
    return TurnId(str(uuid.uuid5(_NAMESPACE, f"{tenant}\x1f{key}")))


def dead_letter_id(topic: str, partition: int, offset: int) -> str:
    """Return the id of the dead letter of a record that never became a turn: the same, however often it is read."""
    return str(uuid.uuid5(_NAMESPACE, f"{topic}\x1f{partition}\x1f{offset}"))


def new_key() -> str:
    """Return an idempotency key for a message that came without one."""
    return "auto-" + secrets.token_urlsafe(18)


def new_event_id() -> str:
    """Return a fresh CloudEvents id."""
    return str(uuid.uuid4())
