"""Dead letters for operators: listed without message text, shown, counted, discarded, exported."""

import base64
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Final, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator
from starlette.responses import Response, StreamingResponse

from infra.postgres import audit, letter_views
from infra.postgres.letter_views import Cursor, Letter, Revealed
from producers.gateway.auth import Operator
from producers.gateway.documents import error_responses
from producers.gateway.operators import (
    FILTER_EXAMPLE,
    UUID_PATTERN,
    CursorText,
    LetterPath,
    Limit,
    Reveal,
    Where,
    cursor_of,
    filter_of,
    operator_of,
    owner_of,
    place_of,
    required_filter,
    unknown,
)
from producers.gateway.parts import PartsOf
from producers.gateway.strict_json import StrictJsonRoute
from schemas.letter_filter import MAX_CHARS, LetterFilter

router = APIRouter(tags=["dead letters"], route_class=StrictJsonRoute)

EXPORTED_AT_A_TIME: Final = 100
NDJSON: Final = "application/x-ndjson"


class DeadLetterSummary(BaseModel):
    """A dead letter without anything a visitor wrote."""

    model_config = ConfigDict(from_attributes=True)

    dead_letter_id: str
    turn_id: str | None
    """None for a record that never became a turn."""
    tenant_id: str | None
    conversation_id: str | None
    agent: str | None
    channel: str | None
    reason: str
    stage: str
    """State the turn was in, or `decode`."""
    state: str
    error: str | None
    versions: dict[str, JsonValue]
    """Of policy, prompt and model when it was written."""
    times: int
    """How often its turn left a lane."""
    replays: int
    """How often it was delivered in vain, or sent back."""
    replay_turn: str | None
    """Its latest delivery."""
    replay_of: str | None
    """The dead letter whose replay its turn was."""
    kafka_topic: str | None
    kafka_partition: int | None
    kafka_offset: int | None
    copy_partition: int | None
    """Where its copy is on `fairlead.turns.dlq`."""
    copy_offset: int | None
    created_at: datetime
    updated_at: datetime
    characters: int | None
    """Length of the message."""
    models: list[str]
    """Called for its turn, in order."""


class HeaderPair(BaseModel):
    """One header of the record, in base64."""

    name: str
    value: str | None


class OriginalRecord(BaseModel):
    """The record as it came from Kafka, in base64."""

    key: str | None
    value: str | None
    headers: list[HeaderPair]


class DeadLetterDetails(DeadLetterSummary):
    """A dead letter; what follows is null unless it was revealed."""

    text: str | None = None
    """What the visitor wrote."""
    shown_html: str | None = None
    """What the visitor was shown."""
    record: OriginalRecord | None = None


class DeadLetterPage(BaseModel):
    """Dead letters, newest first."""

    dead_letters: list[DeadLetterSummary]
    next: str | None
    """Cursor of the next page; null on the last one."""


class DeadLetterCount(BaseModel):
    """How many dead letters share reason, state and agent."""

    model_config = ConfigDict(from_attributes=True)

    reason: str
    state: str
    agent: str | None
    n: int
    oldest_at: datetime
    newest_at: datetime


class DeadLetterStats(BaseModel):
    """Dead letters, counted."""

    total: int
    counts: list[DeadLetterCount]


class DiscardRequest(BaseModel):
    """Which dead letters nobody is going to answer: either a filter or ids."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"where": FILTER_EXAMPLE, "reason": "a test that went wrong"}]},
    )

    where: Annotated[str, Field(max_length=MAX_CHARS)] | None = None
    ids: (
        Annotated[list[Annotated[str, StringConstraints(pattern=UUID_PATTERN)]], Field(min_length=1, max_length=1_000)]
        | None
    ) = None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f]+$")]

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.where is None) == (self.ids is None):
            raise ValueError("send either 'where' or 'ids'")
        return self


class Discarded(BaseModel):
    """How many dead letters were discarded; those under way or answered stay as they are."""

    discarded: int


@router.get(
    "/v1/dead-letters",
    operation_id="listDeadLetters",
    summary="List dead letters",
    responses=error_responses(401, 403, 422, 503),
)
async def list_dead_letters(
    principal: Operator, parts: PartsOf, where: Where = None, limit: Limit = 50, cursor: CursorText = None
) -> DeadLetterPage:
    """Return dead letters, newest first, without message text."""
    chosen, after = filter_of(where), Cursor(*place_of(cursor)) if cursor else None
    found = await letter_views.list_letters(parts.engine, owner_of(principal), chosen, after=after, limit=limit + 1)
    page, more = found[:limit], len(found) > limit
    return DeadLetterPage(
        dead_letters=[DeadLetterSummary.model_validate(letter) for letter in page],
        next=cursor_of(page[-1].created_at, page[-1].dead_letter_id) if more else None,
    )


@router.get(
    "/v1/dead-letters/stats",
    operation_id="countDeadLetters",
    summary="Count dead letters",
    responses=error_responses(401, 403, 422, 503),
)
async def count_dead_letters(principal: Operator, parts: PartsOf, where: Where = None) -> DeadLetterStats:
    """Return how many there are by reason, state and agent, and of what age."""
    counts = await letter_views.count_letters(parts.engine, owner_of(principal), filter_of(where))
    return DeadLetterStats(
        total=sum(count.n for count in counts), counts=[DeadLetterCount.model_validate(count) for count in counts]
    )


@router.get(
    "/v1/dead-letters/export",
    operation_id="exportDeadLetters",
    summary="Export dead letters",
    response_class=Response,
    responses={
        200: {"description": "One `DeadLetterDetails` a line", "content": {NDJSON: {"schema": {"type": "string"}}}},
        **error_responses(401, 403, 422, 503),
    },
)
async def export_dead_letters(
    principal: Operator, parts: PartsOf, where: Where = None, reveal: Reveal = "false"
) -> Response:
    """Return all dead letters meant as JSON lines, newest first; with `reveal` texts and record bytes too."""
    owner, chosen, shown = owner_of(principal), filter_of(where), reveal == "true"
    if shown:
        await audit.record(
            parts.engine,
            tenant=principal.tenant,
            operator=operator_of(principal),
            verb="dead_letters_exported",
            subject="dead_letters",
            detail={"where": where or ""},
        )

    async def page(after: Cursor | None) -> Sequence[Letter | Revealed]:
        load = letter_views.list_revealed if shown else letter_views.list_letters
        return await load(parts.engine, owner, chosen, after=after, limit=EXPORTED_AT_A_TIME)

    async def lines(found: Sequence[Letter | Revealed]) -> AsyncIterator[bytes]:
        while found:
            yield b"".join(_details(one).model_dump_json().encode() + b"\n" for one in found)
            last = _letter(found[-1])
            found = await page(Cursor(last.created_at, last.dead_letter_id))

    # Read before the first byte: an outage is a problem then, and not a file that breaks off.
    return StreamingResponse(lines(await page(None)), media_type=NDJSON)


@router.post(
    "/v1/dead-letters/discard",
    operation_id="discardDeadLetters",
    summary="Discard dead letters",
    responses=error_responses(400, 401, 403, 408, 413, 422, 503),
)
async def discard_dead_letters(body: DiscardRequest, principal: Operator, parts: PartsOf) -> Discarded:
    """Say that nobody is going to answer these dead letters. They are kept, and written down in the audit."""
    chosen: LetterFilter | Sequence[str] = body.ids or required_filter(body.where or "")
    said = ", ".join(body.ids) if body.ids else body.where or ""
    n = await letter_views.discard(
        parts.engine, owner_of(principal), chosen, reason=body.reason, said=said, operator=operator_of(principal)
    )
    return Discarded(discarded=n)


@router.get(
    "/v1/dead-letters/{dead_letter_id:uuid}",
    operation_id="getDeadLetter",
    summary="Show a dead letter",
    responses=error_responses(401, 403, 404, 422, 503),
)
async def get_dead_letter(
    dead_letter_id: LetterPath, principal: Operator, parts: PartsOf, reveal: Reveal = "false"
) -> DeadLetterDetails:
    """Return one dead letter; with `reveal` the message, what was shown, and the record."""
    owner = owner_of(principal)
    if reveal == "true":
        shown = await letter_views.reveal(parts.engine, owner, str(dead_letter_id), operator=operator_of(principal))
        if shown is None:
            raise unknown("dead letter")
        return _details(shown)
    found = await letter_views.load_letters(parts.engine, owner, [str(dead_letter_id)])
    if not found:
        raise unknown("dead letter")
    return _details(found[0])


def _letter(one: Letter | Revealed) -> Letter:
    return one if isinstance(one, Letter) else one.letter


def _details(one: Letter | Revealed) -> DeadLetterDetails:
    details = DeadLetterDetails.model_validate(_letter(one), from_attributes=True)
    if isinstance(one, Letter):
        return details
    pairs = zip(one.headers[::2], one.headers[1::2], strict=True)
    record = OriginalRecord(
        key=_base64(one.key),
        value=_base64(one.value),
        headers=[HeaderPair(name=_base64(name) or "", value=_base64(value)) for name, value in pairs],
    )
    return details.model_copy(update={"text": one.asked, "shown_html": one.shown, "record": record})


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()
