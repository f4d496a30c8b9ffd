"""Forgetting what is old: small batches by indexes, each its own transaction. More than one process may forget at once.

A conversation goes whole, with its turns, their attempts, history, assets and keys, and what was learnt of its buyer,
in one transaction: a turn without its key, or a key without its turn, would make of a late repetition another message.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import LedgerUnavailable, row, rows
from schemas.policy import RetentionDays

BATCH: Final = 200
DAY: Final = 86_400.0

_OUTBOX = text("""
DELETE FROM outbox WHERE outbox_id IN (
    SELECT outbox_id FROM outbox
    WHERE published_at IS NOT NULL AND published_at < statement_timestamp() - make_interval(secs => :age)
    ORDER BY published_at LIMIT :batch FOR UPDATE SKIP LOCKED)
RETURNING outbox_id
""")

# Its bytes go along: those of a record by the foreign key, those of a turn here.
_DEAD_LETTERS = text("""
WITH gone AS (
    DELETE FROM dead_letters WHERE dead_letter_id IN (
        SELECT dead_letter_id FROM dead_letters
        WHERE state <> 'unanswered' AND updated_at < statement_timestamp() - make_interval(secs => :age)
        ORDER BY updated_at LIMIT :batch FOR UPDATE SKIP LOCKED)
    RETURNING dead_letter_id, turn_id
), records AS (
    DELETE FROM turn_records r USING gone g WHERE r.turn_id = g.turn_id
)
SELECT dead_letter_id FROM gone
""")

_REPLAYS = text("""
DELETE FROM replay_jobs WHERE job_id IN (
    SELECT job_id FROM replay_jobs
    WHERE ended_at IS NOT NULL AND ended_at < statement_timestamp() - make_interval(secs => :age)
      AND state IN ('finished', 'aborted', 'stopped')
    ORDER BY ended_at LIMIT :batch FOR UPDATE SKIP LOCKED)
RETURNING job_id
""")

# A key whose turn is there goes with it. What is looked for here are keys whose message never became a turn. The scalar
# subquery is asked for each row by its index; NOT EXISTS might be answered by reading all turns.
_KEYS = text("""
WITH looked AS (
    SELECT tenant_id, key, turn_id, created_at FROM idempotency
    WHERE (created_at, tenant_id, key) > (CAST(:after_at AS timestamptz), :after_tenant, :after_name)
      AND created_at < statement_timestamp() - make_interval(secs => :age)
    ORDER BY created_at, tenant_id, key LIMIT :batch
), gone AS (
    DELETE FROM idempotency i USING looked l
    WHERE i.tenant_id = l.tenant_id AND i.key = l.key
      AND (SELECT true FROM turns t WHERE t.turn_id = l.turn_id) IS NULL
    RETURNING i.key
)
SELECT created_at, tenant_id, key AS name, (SELECT count(*)::int FROM gone) AS gone, count(*) OVER () AS looked
FROM looked ORDER BY created_at DESC, tenant_id DESC, key DESC LIMIT 1
""")

_OVER: Final = """
    (SELECT coalesce(t.done_at < statement_timestamp() - make_interval(secs => :age), false) FROM turns t
     WHERE t.tenant_id = c.tenant_id AND t.conversation_id = c.conversation_id ORDER BY t.seq DESC LIMIT 1) IS NOT FALSE
    AND NOT EXISTS (SELECT FROM turns o WHERE o.tenant_id = c.tenant_id AND o.conversation_id = c.conversation_id
                    AND o.done_at IS NULL)
    AND NOT EXISTS (SELECT FROM dead_letters l JOIN turns d ON d.turn_id = l.turn_id
                    WHERE d.tenant_id = c.tenant_id AND d.conversation_id = c.conversation_id
                      AND l.state = 'unanswered')
"""
"""Whether a conversation `c` ended long ago, and nobody owes it an answer."""

_LOOK = text(f"""
SELECT c.created_at, c.tenant_id, c.conversation_id AS name, {_OVER} AS over
FROM (
    SELECT tenant_id, conversation_id, created_at FROM conversations
    WHERE (created_at, tenant_id, conversation_id) > (CAST(:after_at AS timestamptz), :after_tenant, :after_name)
      AND created_at < statement_timestamp() - make_interval(secs => :age)
    ORDER BY created_at, tenant_id, conversation_id LIMIT :batch
) c
ORDER BY c.created_at, c.tenant_id, c.conversation_id
""")  # noqa: S608  (a constant of ours)

_NAMED: Final = """
    JOIN unnest(CAST(:tenants AS text[]), CAST(:names AS text[])) AS n(tenant_id, conversation_id)
    ON c.tenant_id = n.tenant_id AND c.conversation_id = n.conversation_id
"""

# Locked first and judged again in the next statement: a message may have come between, and its turn must not go along.
_LOCKED = text(f"""
SELECT c.tenant_id, c.conversation_id FROM conversations c {_NAMED} FOR UPDATE OF c SKIP LOCKED
""")  # noqa: S608
_CONVERSATIONS = text(f"""
WITH gone AS (
    SELECT c.tenant_id, c.conversation_id FROM conversations c {_NAMED} WHERE {_OVER}
), keys AS (
    DELETE FROM idempotency i USING gone g, turns t
    WHERE t.tenant_id = g.tenant_id AND t.conversation_id = g.conversation_id
      AND i.tenant_id = t.tenant_id AND i.turn_id = t.turn_id
)
DELETE FROM conversations c USING gone g
WHERE c.tenant_id = g.tenant_id AND c.conversation_id = g.conversation_id
RETURNING c.conversation_id
""")  # noqa: S608


@dataclass(frozen=True, slots=True)
class Place:
    """How far a walk over a table has come."""

    at: datetime
    tenant: str
    name: str

    @property
    def values(self) -> dict[str, object]:
        """Return it as statements take it."""
        return {"after_at": self.at, "after_tenant": self.tenant, "after_name": self.name}


START: Final = Place(datetime(1, 1, 1, tzinfo=UTC), "", "")


@dataclass(frozen=True, slots=True)
class Step:
    """What one batch did: how many it forgot, and where to go on; None at the end."""

    gone: int
    on: Place | None


Walk = Callable[[Place], Awaitable[Step]]


class Retention:
    """Each walk takes one batch. Those that must pass what stays are told where to go on.

    Every method raises `LedgerUnavailable` when PostgreSQL does not answer: nothing is half forgotten.
    """

    def __init__(self, engine: AsyncEngine, *, days: RetentionDays) -> None:
        self._engine = engine
        self._transactional = engine.execution_options(isolation_level="READ COMMITTED")
        self._days = days

    @property
    def walks(self) -> Mapping[str, Walk]:
        """Return every walk by what it forgets."""
        return {
            "outbox": self.outbox,
            "conversations": self.conversations,
            "keys": self.keys,
            "dead_letters": self.dead_letters,
            "replay_jobs": self.replays,
        }

    async def outbox(self, place: Place) -> Step:
        """Forget what Kafka has."""
        return await self._oldest(_OUTBOX, self._days.outbox, place)

    async def dead_letters(self, place: Place) -> Step:
        """Forget dead letters that are done with, and the bytes kept for them."""
        return await self._oldest(_DEAD_LETTERS, self._days.dead_letters, place)

    async def replays(self, place: Place) -> Step:
        """Forget jobs that have ended, and their items."""
        return await self._oldest(_REPLAYS, self._days.dead_letters, place)

    async def _oldest(self, statement: TextClause, days: float, place: Place) -> Step:
        gone = len(await rows(self._engine, statement, {"age": days * DAY, "batch": BATCH}))
        return Step(gone, place if gone == BATCH else None)

    async def keys(self, place: Place) -> Step:
        """Forget keys whose message never became a turn."""
        values = {"age": self._days.keys * DAY, "batch": BATCH, **place.values}
        last = await row(self._engine, _KEYS, values)
        if last is None:
            return Step(0, None)
        on = Place(last["created_at"], last["tenant_id"], last["name"])
        return Step(last["gone"], on if last["looked"] == BATCH else None)

    async def conversations(self, place: Place) -> Step:
        """Forget conversations that have ended, with everything that is theirs."""
        values = {"age": self._days.conversations * DAY, "batch": BATCH, **place.values}
        looked = await rows(self._engine, _LOOK, values)
        over = [(str(r["tenant_id"]), str(r["name"])) for r in looked if r["over"]]
        gone = await self._forget(over) if over else 0
        if len(looked) < BATCH:
            return Step(gone, None)
        last = looked[-1]
        return Step(gone, Place(last["created_at"], last["tenant_id"], last["name"]))

    async def _forget(self, conversations: list[tuple[str, str]]) -> int:
        try:
            async with self._transactional.begin() as connection:
                named = _named(conversations)
                locked = (await connection.execute(_LOCKED, named)).all()
                mine = {"age": self._days.conversations * DAY, **_named([(str(t), str(c)) for t, c in locked])}
                return len((await connection.execute(_CONVERSATIONS, mine)).all())
        except (DBAPIError, PoolTimeout, OSError, TimeoutError) as error:
            raise LedgerUnavailable(f"PostgreSQL does not answer: {type(error).__name__}") from error


def _named(conversations: list[tuple[str, str]]) -> dict[str, object]:
    return {"tenants": [tenant for tenant, _ in conversations], "names": [name for _, name in conversations]}
