"""Upkeep's side of the ledger: what nobody is working on any more. Every sweep may run in several processes at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.keepers import keeper_of, told_of_person
from infra.postgres.letters import LETTER_COLUMNS, letter_ctes
from infra.postgres.rescue_budget import ALLOWED_SQL, budget_values
from infra.postgres.statements import row, rows
from schemas.agents import Agent, Lane, lane_of
from schemas.dead_letters import DeadLetterReason
from schemas.ids import TurnId
from schemas.policy import Deadlines, RescueBudget
from schemas.turns import TurnState

BATCH: Final = 200

# The clock of an index's range must stand still: `statement_timestamp()`. With `clock_timestamp()`, or in the order of
# another column, a sweep walks all that is open.

# A hint is sent again 2, 4, 8, 8… seconds after the last one: sooner would breed copies under a backlog.
_REHINT = text("""
WITH due AS (
    SELECT turn_id FROM turns
    WHERE state IN ('queued', 'rescue') AND hinted_at < statement_timestamp() - interval '2 seconds'
      AND hinted_at < clock_timestamp() - make_interval(secs => least(8, power(2, least(hints, 3))))
    ORDER BY hinted_at LIMIT :batch FOR UPDATE SKIP LOCKED
)
UPDATE turns t SET hinted_at = clock_timestamp(), hints = t.hints + 1 FROM due d WHERE t.turn_id = d.turn_id
RETURNING t.turn_id::text, t.agent, t.state
""")

# Also the heads that an agent was given before a person took their conversation: they are taken back.
_WAKEABLE = text("""
(SELECT t.turn_id::text FROM turns t
WHERE t.done_at IS NULL
  AND ((t.state = 'received' AND t.created_at < clock_timestamp() - interval '2 seconds')
       OR (t.state = 'preparing' AND t.lease_until < clock_timestamp()))
  AND NOT EXISTS (SELECT 1 FROM turns p WHERE p.tenant_id = t.tenant_id AND p.conversation_id = t.conversation_id
                  AND p.seq < t.seq AND p.done_at IS NULL)
ORDER BY t.created_at LIMIT :batch)
UNION ALL
(SELECT t.turn_id::text FROM conversations k JOIN turns t USING (tenant_id, conversation_id)
WHERE k.keeper = 'human' AND t.done_at IS NULL AND t.state IN ('queued', 'running', 'fallback', 'rescue')
  AND NOT EXISTS (SELECT 1 FROM turns p WHERE p.tenant_id = t.tenant_id AND p.conversation_id = t.conversation_id
                  AND p.seq < t.seq AND p.done_at IS NULL)
LIMIT :batch)
""")


def _to_rescue(*, due: str, since: str, reason: str) -> TextClause:
    """Return the statement that opens turns to the dead-letter route: fence, evidence, and the record's copy for Kafka.

    Conditions name the turn `t`, `since` the column of it that orders them; `reason` is read as it was before. A turn
    that a rescue would be paid for, and that the budget has no token for, gets the reason `budget`: it will be parked.
    """
    return text(f"""
WITH lost AS (
    SELECT t.turn_id, t.state, {reason} AS why,
           EXISTS (SELECT 1 FROM attempts a WHERE a.turn_id = t.turn_id AND a.ordinal = 2) AS spent
    FROM turns t WHERE t.done_at IS NULL AND {due}
    ORDER BY t.{since} LIMIT :batch FOR UPDATE OF t SKIP LOCKED
), due AS (
    SELECT turn_id FROM lost WHERE NOT spent
), {ALLOWED_SQL}, judged AS (
    SELECT l.turn_id, l.state, CASE WHEN l.spent OR a.turn_id IS NOT NULL THEN l.why ELSE 'budget' END AS why
    FROM lost l LEFT JOIN allowed a USING (turn_id)
), moved AS (
    UPDATE turns t SET state = 'rescue', epoch = t.epoch + 1, owner = NULL, lease_until = NULL,
                       hinted_at = clock_timestamp(), hints = 1, reason = j.why
    FROM judged j WHERE t.turn_id = j.turn_id
    RETURNING {LETTER_COLUMNS}, j.state AS from_state, j.why
), left_alone AS (
    UPDATE attempts a SET state = 'abandoned', error = m.why, ended_at = clock_timestamp()
    FROM moved m WHERE a.turn_id = m.turn_id AND a.ended_at IS NULL
), {letter_ctes("moved", reason="s.why")}, event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor, note)
    SELECT turn_id, from_state, 'rescue', epoch, :actor, why FROM moved
)
SELECT turn_id::text, why FROM moved
""")  # noqa: S608  (the interpolations are constants of the product)


_QUEUE_DEADLINE = _to_rescue(
    due=f"""t.state = 'queued' AND t.head_at < statement_timestamp() - make_interval(secs => :queue)
        AND {keeper_of("t")} = 'agent'""",
    since="head_at",
    reason="'queue_deadline'",
)
# A turn that loses a second worker may be what kills them.
_WORKER_LOST = _to_rescue(
    due=f"t.state IN ('running', 'fallback') AND t.lease_until < clock_timestamp() AND {keeper_of('t')} = 'agent'",
    since="lease_until",
    reason="""CASE WHEN EXISTS (SELECT 1 FROM dead_letters l WHERE l.turn_id = t.turn_id AND l.reason = 'worker_lost')
              THEN 'poison' ELSE 'worker_lost' END""",
)

_COLUMNS: Final = f"""t.turn_id::text, t.tenant_id, t.conversation_id, t.seq, t.channel, t.agent, t.epoch, t.state,
       t.content, t.cuts, t.traceparent, t.reason, t.plan IS NOT NULL AS routed,
       t.said_by IS NOT NULL AS said, {keeper_of("t")} = 'human' AS kept, {told_of_person("t")} AS told,
       extract(epoch FROM t.created_at)::bigint AS created,
       (SELECT max(a.ordinal) FROM attempts a WHERE a.turn_id = t.turn_id) AS ordinal"""  # noqa: S608

# No rescue is left where the one fallback is used, or the policy pays for none.
_UNROUTABLE: Final = """t.state = 'rescue'
      AND (t.reason = 'budget' OR EXISTS (SELECT 1 FROM attempts a WHERE a.turn_id = t.turn_id AND a.ordinal = 2))"""


def _fenced(due: str) -> TextClause:
    return text(f"""
WITH due AS (
    SELECT t.turn_id FROM turns t WHERE t.done_at IS NULL AND {due}
    ORDER BY t.deadline_at LIMIT :batch FOR UPDATE OF t SKIP LOCKED
), fenced AS (
    UPDATE turns t SET epoch = t.epoch + 1, owner = NULL, lease_until = NULL FROM due d WHERE t.turn_id = d.turn_id
    RETURNING t.*
)
SELECT {_COLUMNS} FROM fenced t
""")  # noqa: S608


_PAST_DEADLINE = _fenced(
    """t.state IN ('received', 'preparing', 'queued', 'running', 'fallback', 'rescue')
      AND t.deadline_at < statement_timestamp() AND t.coalesced_into IS NULL"""
)
_FORGOTTEN = _fenced(
    f"""{_UNROUTABLE} AND EXISTS (SELECT 1 FROM dead_letters l WHERE l.turn_id = t.turn_id
      AND l.updated_at < clock_timestamp() - make_interval(secs => :patience))"""  # noqa: S608
)
_THESE = _fenced(f"t.turn_id = ANY(CAST(:turn_ids AS uuid[])) AND {_UNROUTABLE}")
_ROUTABLE = text(f"""
SELECT t.turn_id::text FROM turns t
WHERE t.turn_id = ANY(CAST(:turn_ids AS uuid[])) AND t.state = 'rescue' AND NOT ({_UNROUTABLE})
""")  # noqa: S608

# Epoch first, Redis seal after: the other order lets a thawed worker arm again (reference model, mutant "seal first").
_TO_SEALING = text(f"""
WITH due AS (
    SELECT turn_id, state FROM turns
    WHERE done_at IS NULL AND state IN ('streaming', 'sealing')
      AND (lease_until < clock_timestamp()
           OR (state = 'streaming' AND deadline_at < clock_timestamp() - make_interval(secs => :lease)))
    ORDER BY turn_id LIMIT :batch FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE turns t SET state = 'sealing', epoch = t.epoch + CASE WHEN d.state = 'streaming' THEN 1 ELSE 0 END,
                       owner = :actor, lease_until = clock_timestamp() + make_interval(secs => :lease)
    FROM due d WHERE t.turn_id = d.turn_id
    RETURNING t.*, d.state AS from_state
), event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor)
    SELECT turn_id, from_state, 'sealing', epoch, :actor FROM moved WHERE from_state <> 'sealing'
)
SELECT {_COLUMNS} FROM moved t
""")  # noqa: S608

# The checkpoint may hold what waited for the log and was never shown: the next attempt must not inherit it.
_SEALED_UNSEEN = text(f"""
WITH moved AS (
    UPDATE turns t SET state = 'rescue', epoch = epoch + 1, owner = NULL, lease_until = NULL,
                       hinted_at = clock_timestamp(), hints = 1, visible_at = NULL, content = '', cuts = '{{}}',
                       reason = 'worker_lost'
    WHERE turn_id = CAST(:turn_id AS uuid) AND epoch = :epoch AND state = 'sealing'
    RETURNING {LETTER_COLUMNS}, 'sealing' AS from_state
), left_alone AS (
    UPDATE attempts a SET state = 'abandoned', error = 'worker_lost', ended_at = clock_timestamp()
    FROM moved m WHERE a.turn_id = m.turn_id AND a.ended_at IS NULL
), {letter_ctes("moved", reason="'worker_lost'")}, event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor)
    SELECT turn_id, 'sealing', 'rescue', epoch, :actor FROM moved
)
SELECT turn_id FROM moved
""")  # noqa: S608


@dataclass(frozen=True, slots=True)
class Rescued:
    """A turn that was taken from its owner or its lane, and why."""

    turn_id: TurnId
    reason: DeadLetterReason


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A turn whose owner is gone, fenced for us."""

    turn_id: TurnId
    tenant: str
    conversation_id: str
    seq: int
    channel: str
    agent: Agent | None
    epoch: int
    state: TurnState
    content: str
    cuts: tuple[int, ...]
    routed: bool
    reason: str | None
    created: int
    ordinal: int | None
    traceparent: str | None
    said: bool = False
    """It is what a person wrote, and answers itself."""
    kept: bool = False
    """A person has the conversation."""
    told: bool = False
    """The visitor has heard so already, or has heard from that person."""


class Sweeps:
    """Each method is one round trip and takes at most `BATCH` turns."""

    def __init__(self, engine: AsyncEngine, *, deadlines: Deadlines, rescues: RescueBudget, actor: str) -> None:
        self._engine = engine
        self._deadlines = deadlines
        self._budget = budget_values(rescues)
        self._actor = actor

    async def rehint(self) -> list[tuple[TurnId, Lane]]:
        """Return turns whose dispatch may be lost, and the lanes to send them to again."""
        found = await rows(self._engine, _REHINT, {"batch": BATCH})
        return [
            (
                TurnId(r["turn_id"]),
                Lane.FRONTIER_FALLBACK if r["state"] == TurnState.RESCUE else lane_of(Agent(r["agent"])),
            )
            for r in found
        ]

    async def wakeable(self) -> list[TurnId]:
        """Return heads of conversations that no orchestrator is preparing."""
        return [TurnId(r["turn_id"]) for r in await rows(self._engine, _WAKEABLE, {"batch": BATCH})]

    async def pass_queue_deadline(self) -> list[Rescued]:
        """Open turns that waited too long in their lane to the dead-letter route (T12)."""
        return await self._rescued(_QUEUE_DEADLINE, {"queue": self._deadlines.queue})

    async def expire_unseen(self) -> list[Rescued]:
        """Open turns whose worker is gone before anything was visible to the dead-letter route (T13)."""
        return await self._rescued(_WORKER_LOST, {})

    async def _rescued(self, statement: TextClause, more: dict[str, object]) -> list[Rescued]:
        found = await rows(self._engine, statement, {"batch": BATCH, "actor": self._actor, **self._budget, **more})
        return [Rescued(TurnId(r["turn_id"]), DeadLetterReason(r["why"])) for r in found]

    async def routable(self, turn_ids: Sequence[TurnId]) -> list[TurnId]:
        """Return those of the turns that wait for a rescue and may have one: their fallback is unused."""
        return [TurnId(r["turn_id"]) for r in await rows(self._engine, _ROUTABLE, {"turn_ids": list(turn_ids)})]

    async def fence_unroutable(self, turn_ids: Sequence[TurnId]) -> list[Abandoned]:
        """Fence those of the turns that no rescue is left for; the caller parks them."""
        return await self._fence(_THESE, {"turn_ids": list(turn_ids)})

    async def fence_forgotten(self, *, patience: float) -> list[Abandoned]:
        """Fence turns that no rescue is left for and that nobody has parked for `patience` seconds."""
        return await self._fence(_FORGOTTEN, {"patience": patience})

    async def fence_late(self) -> list[Abandoned]:
        """Fence turns whose deadline has passed unseen; the caller settles them without an answer."""
        return await self._fence(_PAST_DEADLINE, {})

    async def _fence(self, statement: TextClause, more: dict[str, object]) -> list[Abandoned]:
        return [_abandoned(r) for r in await rows(self._engine, statement, {"batch": BATCH, **more})]

    async def start_sealing(self) -> list[Abandoned]:
        """Fence streams whose worker is gone (T14); the caller seals the log and settles."""
        found = await rows(
            self._engine, _TO_SEALING, {"batch": BATCH, "actor": self._actor, "lease": self._deadlines.lease}
        )
        return [_abandoned(r) for r in found]

    async def sealed_unseen(self, turn: Abandoned) -> bool:
        """Nothing had become visible: open the turn to rescue (T15)."""
        values = {"turn_id": turn.turn_id, "epoch": turn.epoch, "actor": self._actor}
        return await row(self._engine, _SEALED_UNSEEN, values) is not None


def _abandoned(r: RowMapping) -> Abandoned:
    return Abandoned(
        turn_id=TurnId(r["turn_id"]),
        tenant=r["tenant_id"],
        conversation_id=r["conversation_id"],
        seq=r["seq"],
        channel=r["channel"],
        agent=Agent(r["agent"]) if r["agent"] else None,
        epoch=r["epoch"],
        state=TurnState(r["state"]),
        content=r["content"],
        cuts=tuple(r["cuts"]),
        routed=r["routed"],
        reason=r["reason"],
        created=r["created"],
        ordinal=r["ordinal"],
        traceparent=r["traceparent"],
        said=r["said"],
        kept=bool(r["kept"]),
        told=bool(r["told"]),
    )
