"""Dead letters for operators: listing, showing, counting, discarding. Message text only where it is asked for."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.audit import AUDITED
from infra.postgres.letter_queries import Condition, condition_of
from infra.postgres.statements import row, rows
from schemas.letter_filter import LetterFilter

_COLUMNS: Final = """
l.dead_letter_id::text AS dead_letter_id, l.turn_id::text AS turn_id, l.tenant_id, l.conversation_id,
coalesce(l.agent, t.agent) AS agent, t.channel, l.reason, l.stage, l.state, l.error, l.versions, l.times, l.replays,
l.replay_turn::text AS replay_turn, t.replay_of::text AS replay_of, l.kafka_topic, l.kafka_partition, l.kafka_offset,
l.copy_partition, l.copy_offset, l.created_at, l.updated_at, length(t.input_text) AS characters,
ARRAY(SELECT a.model FROM attempts a WHERE a.turn_id = l.turn_id ORDER BY a.ordinal) AS models
"""
_FROM: Final = "FROM dead_letters l LEFT JOIN turns t ON t.turn_id = l.turn_id"
_REVEALED: Final = """
t.input_text AS asked, t.content || coalesce(t.closing, '') AS shown, coalesce(convert_to(
    t.tenant_id || ':' || t.conversation_id, 'UTF8'), d.key) AS key,
coalesce(r.value, d.value) AS value, coalesce(r.headers, d.headers, '{}') AS headers
"""
_RECORDS: Final = """
LEFT JOIN turn_records r ON r.turn_id = l.turn_id LEFT JOIN dead_records d ON d.dead_letter_id = l.dead_letter_id
"""
_PAGE: Final = """
AND (CAST(:at AS timestamptz) IS NULL OR l.created_at < :at
     OR (l.created_at = :at AND l.dead_letter_id > CAST(:id AS uuid)))
ORDER BY l.created_at DESC, l.dead_letter_id LIMIT :limit
"""
_UNDER_WAY: Final = """
EXISTS (SELECT 1 FROM replay_items i JOIN replay_jobs j USING (job_id)
        WHERE i.dead_letter_id = l.dead_letter_id AND i.state = 'running' AND j.mode = 'deliver')
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose dead letters are meant."""

    tenant: str
    installation: bool
    """Also those of records whose tenant nobody knows."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a listing: behind the letter with this time and id."""

    at: datetime
    dead_letter_id: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter without anything a visitor wrote."""

    dead_letter_id: str
    turn_id: str | None
    """None for a record that never became a turn."""
    tenant_id: str | None
    conversation_id: str | None
    agent: str | None
    channel: str | None
    reason: str
    stage: str
    state: str
    error: str | None
    versions: dict[str, object]
    times: int
    replays: int
    replay_turn: str | None
    replay_of: str | None
    """The letter whose replay this one's turn was."""
    kafka_topic: str | None
    kafka_partition: int | None
    kafka_offset: int | None
    copy_partition: int | None
    copy_offset: int | None
    created_at: datetime
    updated_at: datetime
    characters: int | None
    """How long the message is."""
    models: list[str]
    """Called for it, in order."""


@dataclass(frozen=True, slots=True)
class Revealed:
    """What a visitor wrote and was shown, and the record as it came from Kafka."""

    letter: Letter
    asked: str | None = field(repr=False)
    shown: str | None = field(repr=False)
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: tuple[bytes | None, ...] = field(repr=False)
    """Name, value, name, value, …"""


@dataclass(frozen=True, slots=True)
class LetterCount:
    """How many letters share reason, state and agent."""

    reason: str
    state: str
    agent: str | None
    n: int
    oldest_at: datetime
    newest_at: datetime


def owned(owner: Owner) -> str:
    """Return SQL that is true for the owner's letters; binds `:tenant`."""
    return "(l.tenant_id = :tenant OR l.tenant_id IS NULL)" if owner.installation else "l.tenant_id = :tenant"


async def list_letters(
    engine: AsyncEngine, owner: Owner, chosen: LetterFilter | None, *, after: Cursor | None, limit: int
) -> list[Letter]:
    """Return letters, newest first, from behind a place on."""
    condition = condition_of(chosen)
    statement = text(f"SELECT {_COLUMNS} {_FROM} WHERE {owned(owner)} AND {condition.sql} {_PAGE}")
    return [letter_of(r) for r in await rows(engine, statement, _page(owner, condition, after, limit))]


async def list_revealed(
    engine: AsyncEngine, owner: Owner, chosen: LetterFilter | None, *, after: Cursor | None, limit: int
) -> list[Revealed]:
    """Return the same with what is in them. The caller has written down who asked for it."""
    condition = condition_of(chosen)
    statement = text(
        f"SELECT {_COLUMNS}, {_REVEALED} {_FROM} {_RECORDS} WHERE {owned(owner)} AND {condition.sql} {_PAGE}"
    )
    return [_revealed(r) for r in await rows(engine, statement, _page(owner, condition, after, limit))]


async def load_letters(engine: AsyncEngine, owner: Owner, ids: Sequence[str]) -> list[Letter]:
    """Return letters by their ids, oldest first; those of others are left out."""
    statement = text(
        f"SELECT {_COLUMNS} {_FROM} WHERE {owned(owner)} AND l.dead_letter_id = ANY(CAST(:ids AS uuid[]))"
        " ORDER BY l.created_at, l.dead_letter_id"
    )
    return [letter_of(r) for r in await rows(engine, statement, {"tenant": owner.tenant, "ids": list(ids)})]


async def reveal(engine: AsyncEngine, owner: Owner, dead_letter_id: str, *, operator: str) -> Revealed | None:
    """Return a letter with what is in it, and write down who looked; None, and nothing written, if there is none."""
    audited = AUDITED.format(subject="dead_letter_id", detail="CAST('{}' AS jsonb)", what="found")
    statement = text(f"""
        WITH found AS (
            SELECT {_COLUMNS}, {_REVEALED} {_FROM} {_RECORDS}
            WHERE {owned(owner)} AND l.dead_letter_id = CAST(:id AS uuid)
        ), {audited} SELECT * FROM found
    """)  # noqa: S608
    values = {"tenant": owner.tenant, "id": dead_letter_id, "operator": operator, "verb": "dead_letter_revealed"}
    found = await row(engine, statement, values)
    return _revealed(found) if found else None


async def count_letters(engine: AsyncEngine, owner: Owner, chosen: LetterFilter | None) -> list[LetterCount]:
    """Return how many letters there are by reason, state and agent, most first."""
    condition = condition_of(chosen)
    statement = text(f"""
        SELECT l.reason, l.state, coalesce(l.agent, t.agent) AS agent, count(*) AS n,
               min(l.created_at) AS oldest_at, max(l.created_at) AS newest_at
        {_FROM} WHERE {owned(owner)} AND {condition.sql} GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3
    """)
    found = await rows(engine, statement, {**condition.values, "tenant": owner.tenant})
    return [LetterCount(**dict(r)) for r in found]


async def discard(
    engine: AsyncEngine, owner: Owner, chosen: LetterFilter | Sequence[str], *, reason: str, said: str, operator: str
) -> int:
    """Say that nobody will answer these letters any more; returns how many. Those under way or answered stay.

    Args:
        engine: the ledger.
        owner: whose letters.
        chosen: a filter or ids.
        reason: why, for the audit.
        said: the filter's text, or the ids, as they were given.
        operator: who says so.
    """
    if isinstance(chosen, Sequence):
        condition = Condition("l.dead_letter_id = ANY(CAST(:ids AS uuid[]))", {"ids": list(chosen)})
    else:
        condition = condition_of(chosen)
    audited = AUDITED.format(
        subject="'dead_letters'", detail="CAST(:detail AS jsonb) || jsonb_build_object('discarded', n)", what="counted"
    )
    statement = text(f"""
        WITH chosen AS (
            SELECT l.dead_letter_id {_FROM}
            WHERE {owned(owner)} AND l.state IN ('unanswered', 'obsolete') AND {condition.sql} AND NOT {_UNDER_WAY}
        ), discarded AS (
            UPDATE dead_letters l SET state = 'discarded', updated_at = clock_timestamp() FROM chosen c
            WHERE l.dead_letter_id = c.dead_letter_id AND l.state IN ('unanswered', 'obsolete')
            RETURNING l.dead_letter_id
        ), counted AS (SELECT count(*) AS n FROM discarded), {audited}
        SELECT n FROM counted
    """)  # noqa: S608
    detail = json.dumps({"reason": reason, "chosen": said})
    recorded = {"tenant": owner.tenant, "operator": operator, "verb": "dead_letters_discarded", "detail": detail}
    found = await row(engine, statement, {**condition.values, **recorded})
    return int(found["n"]) if found else 0


def letter_of(found: RowMapping) -> Letter:
    """Read one row of a statement with the columns of a letter."""
    return Letter(**{name: found[name] for name in Letter.__dataclass_fields__})


def _revealed(found: RowMapping) -> Revealed:
    return Revealed(
        letter=letter_of(found),
        asked=found["asked"],
        shown=found["shown"],
        key=found["key"],
        value=found["value"],
        headers=tuple(found["headers"]),
    )


def _page(owner: Owner, condition: Condition, after: Cursor | None, limit: int) -> dict[str, object]:
    place: dict[str, object] = {"at": after.at if after else None, "id": after.dead_letter_id if after else None}
    return {**condition.values, **place, "tenant": owner.tenant, "limit": limit}
