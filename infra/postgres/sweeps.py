"""Upkeep's side of the ledger: what nobody is working on any more. Every sweep may run in several processes at once."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import row, rows
from schemas.agents import Agent, Lane, lane_of
from schemas.ids import TurnId
from schemas.policy import Deadlines
from schemas.turns import TurnState

BATCH: Final = 200

# A hint is sent again 2, 4, 8, 8… seconds after the last one: sooner would breed copies under a backlog.
_REHINT = text("""
WITH due AS (
    SELECT turn_id FROM turns
    WHERE state IN ('queued', 'rescue') AND done_at IS NULL
      AND hinted_at < clock_timestamp() - make_interval(secs => least(8, power(2, least(hints, 3))))
    ORDER BY hinted_at LIMIT :batch FOR UPDATE SKIP LOCKED
)
UPDATE turns t SET hinted_at = clock_timestamp(), hints = t.hints + 1 FROM due d WHERE t.turn_id = d.turn_id
RETURNING t.turn_id::text, t.agent, t.state
""")

_WAKEABLE = text("""
SELECT t.turn_id::text FROM turns t
WHERE t.done_at IS NULL
  AND ((t.state = 'received' AND t.created_at < clock_timestamp() - interval '2 seconds')
       OR (t.state = 'preparing' AND t.lease_until < clock_timestamp()))
  AND NOT EXISTS (SELECT 1 FROM turns p WHERE p.tenant_id = t.tenant_id AND p.conversation_id = t.conversation_id
                  AND p.seq < t.seq AND p.done_at IS NULL)
ORDER BY t.created_at LIMIT :batch
""")

# A turn has one letter, however often it leaves a lane.
_TO_RESCUE: Final = """
WITH due AS (
    SELECT turn_id, state FROM turns WHERE done_at IS NULL AND {due}
    ORDER BY turn_id LIMIT :batch FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE turns t SET state = 'rescue', epoch = t.epoch + 1, owner = NULL, lease_until = NULL,
                       hinted_at = clock_timestamp(), hints = 1, reason = '{reason}'
    FROM due d WHERE t.turn_id = d.turn_id
    RETURNING t.*, d.state AS from_state
), left_alone AS (
    UPDATE attempts a SET state = 'abandoned', error = '{reason}', ended_at = clock_timestamp()
    FROM moved m WHERE a.turn_id = m.turn_id AND a.ended_at IS NULL
), letter AS (
    INSERT INTO dead_letters AS l (turn_id, tenant_id, conversation_id, reason, stage, epoch,
                              kafka_topic, kafka_partition, kafka_offset)
    SELECT turn_id, tenant_id, conversation_id, '{reason}', from_state, epoch,
           kafka_topic, kafka_partition, kafka_offset
    FROM moved
    ON CONFLICT (turn_id) WHERE turn_id IS NOT NULL DO UPDATE
    SET reason = excluded.reason, stage = excluded.stage, error = excluded.error, epoch = excluded.epoch,
        state = 'unanswered', times = l.times + 1, updated_at = clock_timestamp()
), event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor, note)
    SELECT turn_id, from_state, 'rescue', epoch, :actor, '{reason}' FROM moved
)
SELECT turn_id::text FROM moved
"""

_QUEUE_DEADLINE = text(
    _TO_RESCUE.format(
        due="state = 'queued' AND head_at < clock_timestamp() - make_interval(secs => :queue)", reason="queue_deadline"
    )
)
_WORKER_LOST = text(
    _TO_RESCUE.format(due="state IN ('running', 'fallback') AND lease_until < clock_timestamp()", reason="worker_lost")
)

_COLUMNS: Final = """t.turn_id::text, t.tenant_id, t.conversation_id, t.seq, t.channel, t.agent, t.epoch, t.state,
       t.content, t.cuts, t.traceparent, t.reason, t.plan IS NOT NULL AS routed,
       extract(epoch FROM t.created_at)::bigint AS created,
       (SELECT max(a.ordinal) FROM attempts a WHERE a.turn_id = t.turn_id) AS ordinal"""

# No rescue is left: the deadline has passed, or the one fallback is used.
_HOPELESS = text(f"""
WITH due AS (
    SELECT turn_id FROM turns t
    WHERE done_at IS NULL AND state IN ('received', 'preparing', 'queued', 'running', 'fallback', 'rescue')
      AND (deadline_at < clock_timestamp()
           OR (state = 'rescue' AND EXISTS (SELECT 1 FROM attempts a WHERE a.turn_id = t.turn_id AND a.ordinal = 2)))
    ORDER BY turn_id LIMIT :batch FOR UPDATE SKIP LOCKED
), fenced AS (
    UPDATE turns t SET epoch = t.epoch + 1, owner = NULL, lease_until = NULL FROM due d WHERE t.turn_id = d.turn_id
    RETURNING t.*
)
SELECT {_COLUMNS} FROM fenced t
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
_SEALED_UNSEEN = text("""
WITH moved AS (
    UPDATE turns SET state = 'rescue', epoch = epoch + 1, owner = NULL, lease_until = NULL,
                     hinted_at = clock_timestamp(), hints = 1, visible_at = NULL, content = '', cuts = '{}',
                     reason = 'worker_lost'
    WHERE turn_id = CAST(:turn_id AS uuid) AND epoch = :epoch AND state = 'sealing'
    RETURNING *
), left_alone AS (
    UPDATE attempts a SET state = 'abandoned', error = 'worker_lost', ended_at = clock_timestamp()
    FROM moved m WHERE a.turn_id = m.turn_id AND a.ended_at IS NULL
), letter AS (
    INSERT INTO dead_letters AS l (turn_id, tenant_id, conversation_id, reason, stage, epoch,
                              kafka_topic, kafka_partition, kafka_offset)
    SELECT turn_id, tenant_id, conversation_id, 'worker_lost', 'sealing', epoch,
           kafka_topic, kafka_partition, kafka_offset
    FROM moved
    ON CONFLICT (turn_id) WHERE turn_id IS NOT NULL DO UPDATE
    SET reason = excluded.reason, stage = excluded.stage, error = excluded.error, epoch = excluded.epoch,
        state = 'unanswered', times = l.times + 1, updated_at = clock_timestamp()
), event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor)
    SELECT turn_id, 'sealing', 'rescue', epoch, :actor FROM moved
)
SELECT turn_id FROM moved
""")


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


class Sweeps:
    """Each method is one round trip and takes at most `BATCH` turns."""

    def __init__(self, engine: AsyncEngine, *, deadlines: Deadlines, actor: str) -> None:
        self._engine = engine
        self._deadlines = deadlines
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

    async def pass_queue_deadline(self) -> list[TurnId]:
        """Move turns that waited too long in their lane to rescue (T12)."""
        return await self._rescued(_QUEUE_DEADLINE, {"queue": self._deadlines.queue})

    async def expire_unseen(self) -> list[TurnId]:
        """Move turns whose worker is gone before anything was visible to rescue (T13)."""
        return await self._rescued(_WORKER_LOST, {})

    async def _rescued(self, statement: TextClause, more: dict[str, object]) -> list[TurnId]:
        found = await rows(self._engine, statement, {"batch": BATCH, "actor": self._actor, **more})
        return [TurnId(r["turn_id"]) for r in found]

    async def fence_hopeless(self) -> list[Abandoned]:
        """Fence turns that no model will answer any more; the caller settles them with the bounded reply."""
        return [_abandoned(r) for r in await rows(self._engine, _HOPELESS, {"batch": BATCH})]

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
    )
