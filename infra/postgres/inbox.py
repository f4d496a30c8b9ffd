"""From Kafka to a lane: recording turns (T1), preparing the head of a conversation (T2, T3), queueing it (T4)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.coalescing import ABSORBED_CTES, ABSORBED_TEXT, asked
from infra.postgres.facts import FACTS_SQL, LEARNT_CTE, facts_read, learnt_in
from infra.postgres.headers import byte_array, flat
from infra.postgres.keepers import keeper_of, told_of_person
from infra.postgres.statements import row, rows
from schemas.agents import Agent
from schemas.briefs import NO_BRIEF, Brief, Fact
from schemas.events import TurnSubmitted
from schemas.ids import TurnId
from schemas.policy import Deadlines

HISTORY_SQL: Final = f"""
    (SELECT coalesce(json_agg(json_build_array({asked("h")}, h.content, h.agent, h.seq, h.dimension,
                                               CASE t.agent WHEN '{Agent.ADAPTIVE_RESPONSE.value}'
                                                            THEN h.plan #> '{{read,passages}}' END) ORDER BY h.seq),
                     '[]')
     FROM (SELECT turn_id, seq, input_text, agent, dimension, plan,
                  content || CASE state WHEN 'truncated' THEN coalesce(closing, '') ELSE '' END AS content FROM turns p
           WHERE p.tenant_id = t.tenant_id AND p.conversation_id = t.conversation_id AND p.seq < t.seq
             AND p.done_at IS NOT NULL AND p.state <> 'rejected' AND p.coalesced_into IS NULL
           ORDER BY p.seq DESC LIMIT :history) h)
"""  # noqa: S608  (constants only)
"""The last turns before turn `t` in its conversation, oldest first, a group as one: see `PastTurn`."""

_RECORD = text("""
WITH batch AS (
    SELECT * FROM unnest(CAST(:turn_ids AS uuid[]), CAST(:tenants AS text[]), CAST(:conversations AS text[]),
                         CAST(:channels AS text[]), CAST(:texts AS text[]), CAST(:metadata AS jsonb[]),
                         CAST(:histories AS jsonb[]), CAST(:digests AS text[]), CAST(:traces AS text[]),
                         CAST(:partitions AS int[]), CAST(:offsets AS bigint[]), CAST(:values AS bytea[]),
                         CAST(:record_headers AS text[]), CAST(:timestamps AS bigint[]))
        WITH ORDINALITY AS b(turn_id, tenant_id, conversation_id, channel, input_text, metadata, history,
                             body_sha256, traceparent, kafka_partition, kafka_offset, value, headers, produced_ms, ord)
), fresh AS (
    -- Counted and numbered here: joined counts make PostgreSQL's generic plan compare every pair of a batch.
    SELECT d.*, count(*) OVER (PARTITION BY d.tenant_id, d.conversation_id) AS n,
           row_number() OVER (PARTITION BY d.tenant_id, d.conversation_id ORDER BY d.ord) AS place
    FROM (SELECT DISTINCT ON (b.turn_id) b.* FROM batch b JOIN tenants USING (tenant_id)
          WHERE NOT EXISTS (SELECT 1 FROM turns t WHERE t.turn_id = b.turn_id)
          ORDER BY b.turn_id, b.ord) d
), numbered AS (
    INSERT INTO conversations AS c (tenant_id, conversation_id, last_seq)
    SELECT tenant_id, conversation_id, n FROM fresh WHERE place = 1 ORDER BY 1, 2
    ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET last_seq = c.last_seq + excluded.last_seq
    RETURNING c.tenant_id, c.conversation_id, c.last_seq
), inserted AS (
    INSERT INTO turns AS t (turn_id, tenant_id, conversation_id, seq, channel, input_text, metadata, history,
                            body_sha256, traceparent, kafka_topic, kafka_partition, kafka_offset, state,
                            deadline_at)
    SELECT f.turn_id, f.tenant_id, f.conversation_id, m.last_seq - f.n + f.place,
           f.channel, f.input_text, f.metadata, f.history, f.body_sha256, nullif(f.traceparent, ''),
           :topic, f.kafka_partition, f.kafka_offset, 'received',
           clock_timestamp() + make_interval(secs => :waiting)
    FROM fresh f JOIN numbered m USING (tenant_id, conversation_id)
    ON CONFLICT DO NOTHING
    RETURNING t.turn_id, t.body_sha256
), record AS (
    INSERT INTO turn_records (turn_id, value, headers, produced_ms)
    SELECT f.turn_id, f.value, CAST(f.headers AS bytea[]), f.produced_ms FROM fresh f JOIN inserted USING (turn_id)
), event AS (
    INSERT INTO turn_events (turn_id, to_state, epoch, actor) SELECT turn_id, 'received', 0, :actor FROM inserted
)
SELECT b.ord::int - 1 AS index, coalesce(i.body_sha256 = b.body_sha256, false) AS inserted,
       n.tenant_id IS NULL AS unknown_tenant, coalesce(e.body_sha256, i.body_sha256) <> b.body_sha256 AS conflict
FROM batch b
LEFT JOIN inserted i USING (turn_id)
LEFT JOIN tenants n USING (tenant_id)
LEFT JOIN turns e ON e.turn_id = b.turn_id
ORDER BY b.ord
""")


def _preparing(*, more: str = "", more_text: str = "") -> TextClause:
    """Return the statement that takes the head of a conversation; `more` CTEs may add to its text.

    Where a person has the conversation, its head is taken back from whatever it was given to: to be handed off.
    """
    return text(f"""
WITH claimed AS (
    UPDATE turns t
    SET state = 'preparing', epoch = t.epoch + 1, owner = :actor,
        lease_until = clock_timestamp() + make_interval(secs => :lease),
        deadline_at = CASE WHEN t.state = 'received'
                           THEN clock_timestamp() + make_interval(secs => :turn) ELSE t.deadline_at END
    FROM (SELECT turn_id, state FROM turns WHERE turn_id = CAST(:turn_id AS uuid) FOR UPDATE) old
    WHERE t.turn_id = old.turn_id
      AND (t.state = 'received' OR (t.state = 'preparing' AND t.lease_until < clock_timestamp())
           OR (t.state IN ('queued', 'running', 'fallback', 'rescue') AND {keeper_of("t")} = 'human'))
      AND NOT EXISTS (SELECT 1 FROM turns p WHERE p.tenant_id = t.tenant_id
                      AND p.conversation_id = t.conversation_id AND p.seq < t.seq AND p.done_at IS NULL)
    RETURNING t.*, old.state AS from_state
), event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor)
    SELECT turn_id, from_state, state, epoch, :actor FROM claimed
){more}
SELECT t.turn_id::text, t.tenant_id, t.conversation_id, t.seq, t.epoch, t.input_text{more_text} AS input_text,
       t.history, t.channel, t.traceparent, extract(epoch FROM t.created_at)::bigint AS created,
       t.plan IS NOT NULL AS routed, t.said_by IS NOT NULL AS said, t.content, t.cuts,
       {keeper_of("t")} = 'human' AS kept, {told_of_person("t")} AS told, {HISTORY_SQL} AS past, {FACTS_SQL} AS facts
FROM claimed t
""")  # noqa: S608  (constants only)


_PREPARE = _preparing()
_PREPARE_TOGETHER = _preparing(more=f", {ABSORBED_CTES}", more_text=ABSORBED_TEXT)

_QUEUE = text(f"""
WITH queued AS (
    UPDATE turns t SET state = 'queued', owner = NULL, lease_until = NULL, agent = :agent, plan = CAST(:plan AS jsonb),
           head_at = clock_timestamp(), hinted_at = clock_timestamp(), hints = 1
    WHERE turn_id = CAST(:turn_id AS uuid) AND epoch = :epoch AND state = 'preparing'
      AND {keeper_of("t")} = 'agent'
    RETURNING turn_id, epoch, tenant_id, conversation_id
), {LEARNT_CTE}, event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor, note)
    SELECT turn_id, 'preparing', 'queued', epoch, :actor, :note FROM queued
)
SELECT turn_id FROM queued
""")  # noqa: S608  (constants only)


@dataclass(frozen=True, slots=True)
class Inbound:
    """A decoded event, the record it came as, and where that stood in Kafka."""

    event: TurnSubmitted
    partition: int
    offset: int
    traceparent: str | None
    value: bytes = field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(default=(), repr=False)
    timestamp: int = 0
    """Milliseconds since 1970 at which it was produced."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of one inbound event."""

    inbound: Inbound
    inserted: bool
    """A new turn. Otherwise the ledger already had it, or it is refused for one of the reasons below."""
    unknown_tenant: bool
    conflict: bool
    """Its id is known, but with another message."""


@dataclass(frozen=True, slots=True)
class PastTurn:
    """One earlier turn of a conversation."""

    asked: str
    shown_html: str
    agent: Agent | None
    seq: int = 0
    dimension: str | None = None
    """What discovery asked about, as the model named it."""
    read: tuple[str, ...] = ()
    """Ids of the passages of the knowledge base that its model was shown. Read for adaptive response alone, which has
    to find others: plans are large."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The head of a conversation, ours to route."""

    turn_id: TurnId
    tenant: str
    conversation_id: str
    seq: int
    epoch: int
    text: str
    """What it asks, with its group."""
    channel: str
    past: tuple[PastTurn, ...]
    brought: tuple[tuple[str, str], ...]
    """History the channel brought along: (role, text), oldest first."""
    traceparent: str | None
    created: int = 0
    """Unix seconds at which it was recorded."""
    routed: bool = False
    """Whether an agent had it before: its watchers may have been told so."""
    said: bool = False
    """Nobody asks: it is what a person writes, and answers itself."""
    content: str = field(default="", repr=False)
    """What a person wrote, as safe HTML."""
    cuts: tuple[int, ...] = ()
    kept: bool = False
    """A person has the conversation: no agent may answer."""
    told: bool = False
    """The visitor has heard so already, or has heard from that person."""
    facts: tuple[Fact, ...] = ()
    """Known of this buyer before this message, the latest of each dimension."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The route of a turn, kept in its row."""

    agent: Agent
    primary: str
    fallback: str
    direct: bool
    """Skip the primary."""
    why: str
    policy: int
    """Version of the policy it follows."""
    brief: Brief = NO_BRIEF

    def as_json(self) -> str:
        """Return the plan as the ledger keeps it."""
        return json.dumps(
            {
                "agent": self.agent,
                "primary": self.primary,
                "fallback": self.fallback,
                "direct": self.direct,
                "why": self.why,
                "policy": self.policy,
                "brief": self.brief.model_dump(mode="json", exclude_defaults=True),
            }
        )


class Inbox:
    """The orchestrator's side of the ledger."""

    def __init__(
        self, engine: AsyncEngine, *, deadlines: Deadlines, actor: str, history: int, coalesce: bool = False
    ) -> None:
        """Record and prepare turns as `actor`; with `coalesce` a head takes what waits behind it along."""
        self._engine = engine
        self._deadlines = deadlines
        self._actor = actor
        self._history = history
        self._prepare = _PREPARE_TOGETHER if coalesce else _PREPARE

    async def record(self, topic: str, batch: Sequence[Inbound]) -> list[Recorded]:
        """Write down a batch in the order given; one statement, so all of it or nothing.

        Raises:
            LedgerUnavailable: nothing may be committed to Kafka.
            LedgerRefuses: one of them can never be recorded; none of them was.
        """
        events = [item.event for item in batch]
        found = await rows(
            self._engine,
            _RECORD,
            {
                "turn_ids": [e.turn_id for e in events],
                "tenants": [e.tenant_id for e in events],
                "conversations": [e.conversation_id for e in events],
                "channels": [e.channel for e in events],
                "texts": [e.text for e in events],
                "metadata": [json.dumps(e.metadata) for e in events],
                "histories": [json.dumps([m.model_dump() for m in e.history]) for e in events],
                "digests": [e.body_sha256 for e in events],
                "traces": [item.traceparent or "" for item in batch],
                "partitions": [item.partition for item in batch],
                "offsets": [item.offset for item in batch],
                "values": [item.value for item in batch],
                "record_headers": [byte_array(flat(item.headers)) for item in batch],
                "timestamps": [item.timestamp for item in batch],
                "topic": topic,
                "actor": self._actor,
                "waiting": self._deadlines.waiting,
            },
        )
        return [_recorded(batch[int(r["index"])], r) for r in found]

    async def prepare(self, turn_id: TurnId) -> Prepared | None:
        """Take the turn if it is the head of its conversation and nobody prepares it; None otherwise."""
        found = await row(
            self._engine,
            self._prepare,
            {
                "turn_id": turn_id,
                "actor": self._actor,
                "lease": self._deadlines.lease,
                "turn": self._deadlines.turn,
                "history": self._history,
            },
        )
        return _prepared(found) if found else None

    async def queue(self, prepared: Prepared, plan: Plan) -> bool:
        """Write the plan down and open the turn to its lane. False: it is not ours any more, or a person's."""
        found = await row(
            self._engine,
            _QUEUE,
            {
                "turn_id": prepared.turn_id,
                "epoch": prepared.epoch,
                "agent": plan.agent,
                "plan": plan.as_json(),
                "note": plan.why,
                "learnt": learnt_in(prepared.seq, plan.brief.facts),
                "actor": self._actor,
            },
        )
        return found is not None


def _recorded(inbound: Inbound, r: RowMapping) -> Recorded:
    return Recorded(
        inbound=inbound,
        inserted=bool(r["inserted"]),
        unknown_tenant=bool(r["unknown_tenant"]),
        conflict=bool(r["conflict"]),
    )


def past_turns(decoded: object) -> tuple[PastTurn, ...]:
    """Read what `HISTORY_SQL` returned."""
    items = cast("list[tuple[str, str, str | None, int, str | None, list[str] | None]]", decoded)
    return tuple(
        PastTurn(asked, shown, Agent(agent) if agent else None, seq, dimension, tuple(read or ()))
        for asked, shown, agent, seq, dimension, read in items
    )


def brought_along(decoded: object) -> tuple[tuple[str, str], ...]:
    """Read the history a channel sent with its message."""
    items = cast("list[Mapping[str, str]]", decoded)
    return tuple((item["role"], item["text"]) for item in items)


def _prepared(r: RowMapping) -> Prepared:
    return Prepared(
        turn_id=TurnId(r["turn_id"]),
        tenant=r["tenant_id"],
        conversation_id=r["conversation_id"],
        seq=r["seq"],
        epoch=r["epoch"],
        text=r["input_text"],
        channel=r["channel"],
        past=past_turns(r["past"]),
        brought=brought_along(r["history"]),
        traceparent=r["traceparent"],
        created=r["created"],
        routed=r["routed"],
        said=r["said"],
        content=r["content"] if r["said"] else "",
        cuts=tuple(cast("list[int]", r["cuts"])) if r["said"] else (),
        kept=bool(r["kept"]),
        told=bool(r["told"]),
        facts=facts_read(r["facts"]),
    )
