"""What the operators' routes share: whose things are meant, filters and cursors as they come in."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import Path, Query

from infra.postgres.letter_views import Owner
from producers.gateway.auth import Principal
from producers.gateway.problems import ProblemError
from schemas.letter_filter import MAX_CHARS, FilterError, LetterFilter, parse_filter

UUID_PATTERN: Final = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
FILTER_EXAMPLE: Final = "agent=discovery and reason=queue_deadline and state=unanswered"

Where = Annotated[
    str | None,
    Query(max_length=MAX_CHARS, description="A filter; all if absent.", examples=[FILTER_EXAMPLE]),
]
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
CursorText = Annotated[
    str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,200}$", description="`next` of the page before this one.")
]
Reveal = Annotated[
    Literal["true", "false"], Query(description="`true` shows message texts too, and is written down in the audit.")
]
JobPath = Annotated[str, Path(pattern=UUID_PATTERN, description="A replay job's id.")]
LetterPath = Annotated[UUID, Path(description="A dead letter's id.")]


def owner_of(principal: Principal) -> Owner:
    """Return whose dead letters this operator may see."""
    return Owner(principal.tenant, installation="installation" in principal.scopes)


def operator_of(principal: Principal) -> str:
    """Return the name under which the audit knows this operator: the id of the key."""
    return principal.key_id or "unknown"


def filter_of(where: str | None) -> LetterFilter | None:
    """Return the filter of a listing; None for all.

    Raises:
        ProblemError: 422 with a sentence that says what to write.
    """
    return None if where is None or not where.strip() else required_filter(where)


def required_filter(where: str) -> LetterFilter:
    """Return the filter of what changes something; there it may not be empty.

    Raises:
        ProblemError: 422 with a sentence that says what to write.
    """
    try:
        return parse_filter(where)
    except FilterError as error:
        raise ProblemError(422, "invalid_filter", "The filter cannot be read", str(error)) from error


def cursor_of(at: datetime, name: str) -> str:
    """Return a place in a listing as opaque text."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {name}".encode()).decode().rstrip("=")


def place_of(cursor: str) -> tuple[datetime, str]:
    """Return the time and the id that `cursor_of` was given.

    Raises:
        ProblemError: 422; it gave no such text.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        at, _, name = raw.partition(" ")
        found = datetime.fromisoformat(at)
        if found.tzinfo is None or len(name) != 36 or not name.replace("-", "").isalnum() or not name.isascii():
            raise ValueError
        int(name.replace("-", ""), 16)
    except (ValueError, binascii.Error):
        raise ProblemError(
            422, "invalid_cursor", "The cursor is none of ours", "Send `next` of the page before this one, unchanged."
        ) from None
    return found, name


def unknown(what: str) -> ProblemError:
    """Return the problem of a thing that does not exist, or is another tenant's: nobody can tell which."""
    return ProblemError(404, f"unknown_{what.replace(' ', '_')}", f"There is no such {what}", "Check its id.")
