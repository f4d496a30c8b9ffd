"""Replay jobs, for the process that works through them. Each step is one statement, so a kill leaves none by halves.

A replay is a new turn, written straight into the ledger. The turn of a delivery has an id that follows from the letter
and how often it was delivered in vain, and the letter is taken by compare-and-set: whoever tries second finds it taken.
A job's row is locked by every start, so that nothing starts once a pause has returned.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.coalescing import asked
from infra.postgres.inbox import HISTORY_SQL, PastTurn, brought_along, past_turns
from infra.postgres.replays import DELIVERED_TURN, SHADOWED, delivered
from infra.postgres.statements import row, rows
from schemas.ids import TurnId
from schemas.names import TOPIC_TURNS
from schemas.replays import REPLAY_PREFIX, Outcome, ReplayMode

ENOUGH: Final = 20
"""So many replays must have ended before their failures stop a job."""

# Oldest first; several processes share the jobs among them.
_LEASE = text("""
WITH due AS (
    SELECT job_id FROM replay_jobs
    WHERE state = 'running' AND (owner = :owner OR lease_until IS NULL OR lease_until < clock_timestamp())
    ORDER BY created_at LIMIT :most FOR UPDATE SKIP LOCKED
)
UPDATE replay_jobs j SET owner = :owner, lease_until = clock_timestamp() + make_interval(secs => :lease)
FROM due d WHERE j.job_id = d.job_id
RETURNING j.job_id::text AS job_id, j.mode, j.rate,
    EXISTS (SELECT 1 FROM replay_items i WHERE i.job_id = j.job_id AND i.conversation_id IS NULL
            AND i.state = 'waiting') AS records,
    (SELECT count(*) FROM replay_items i WHERE i.job_id = j.job_id AND i.state = 'running') AS under_way
""")

_HELD: Final = """
job AS (
    SELECT job_id, tenant_id, mode, late FROM replay_jobs
    WHERE job_id = CAST(:job AS uuid) AND state = 'running' AND owner = :owner AND lease_until > clock_timestamp()
    FOR UPDATE
)
"""
# A new job has no statistics yet: asked as an anti-join this compares every pair of its items.
_PICKED: Final = """
SELECT i.job_id, i.position, i.dead_letter_id, i.conversation_id
FROM replay_items i
WHERE i.job_id = CAST(:job AS uuid) {held} AND i.state = 'waiting' AND i.conversation_id IS NOT NULL
  AND i.position = (SELECT min(e.position) FROM replay_items e WHERE e.job_id = i.job_id
                    AND e.conversation_id = i.conversation_id AND e.state IN ('waiting', 'running'))
ORDER BY i.position LIMIT :batch
"""
_COPIED: Final = """
(turn_id, tenant_id, conversation_id, seq, channel, input_text, metadata, history, body_sha256, kafka_topic,
 kafka_partition, kafka_offset, state, deadline_at, replay_of, replay_mode)
"""

_DECIDED: Final = delivered(
    late="job.late",
    keeper="p.keeper",
    unsettled="""WHEN p.last_seq <> (SELECT max(n.seq) FROM turns n WHERE n.tenant_id = t.tenant_id
                           AND n.conversation_id = t.conversation_id) THEN 'again'""",
)

# The conversation's row is locked, but a turn written while we waited for the lock is not in this statement's snapshot:
# then its count is ahead of the turns we see, and the letter is looked at again in the next round.
_DELIVER = text(f"""
WITH {_HELD}, picked AS ({_PICKED.format(held="AND EXISTS (SELECT 1 FROM job)")}), places AS (
    SELECT p.*, c.tenant_id, c.last_seq, c.keeper FROM picked p CROSS JOIN job
    JOIN conversations c ON c.tenant_id = job.tenant_id AND c.conversation_id = p.conversation_id
    ORDER BY c.tenant_id, c.conversation_id FOR UPDATE OF c
), decided AS (
    SELECT p.*, l.state, l.replays, l.replay_turn, t.turn_id AS original, {DELIVERED_TURN} AS new_turn, {_DECIDED}
        AS outcome
    FROM places p CROSS JOIN job
    JOIN LATERAL (SELECT * FROM dead_letters WHERE dead_letter_id = p.dead_letter_id OFFSET 0) l ON true
    LEFT JOIN turns t ON t.turn_id = l.turn_id
), taken AS (
    UPDATE dead_letters l SET state = 'unanswered', replay_turn = d.new_turn, updated_at = clock_timestamp()
    FROM decided d WHERE d.outcome = 'answer' AND l.dead_letter_id = d.dead_letter_id AND l.state = d.state
      AND l.replays = d.replays AND l.replay_turn IS NOT DISTINCT FROM d.replay_turn
    RETURNING d.*
), left_behind AS (
    UPDATE dead_letters l SET state = 'obsolete', updated_at = clock_timestamp()
    FROM decided d WHERE d.outcome = 'moved_on' AND l.dead_letter_id = d.dead_letter_id AND l.state = 'unanswered'
      AND l.replays = d.replays AND l.replay_turn IS NOT DISTINCT FROM d.replay_turn
), placed AS (
    UPDATE conversations c SET last_seq = c.last_seq + 1
    FROM taken k WHERE c.tenant_id = k.tenant_id AND c.conversation_id = k.conversation_id
    RETURNING k.original, k.new_turn, k.dead_letter_id, c.last_seq
), inserted AS (
    INSERT INTO turns {_COPIED}
    SELECT p.new_turn, t.tenant_id, t.conversation_id, p.last_seq, t.channel, {asked("t")}, t.metadata, t.history,
           t.body_sha256, t.kafka_topic, t.kafka_partition, t.kafka_offset, 'received',
           clock_timestamp() + make_interval(secs => :waiting), p.dead_letter_id, 'deliver'
    FROM placed p JOIN turns t ON t.turn_id = p.original
    RETURNING turn_id
), event AS (
    INSERT INTO turn_events (turn_id, to_state, epoch, actor, note)
    SELECT turn_id, 'received', 0, :owner, 'replay' FROM inserted
), started AS (
    UPDATE replay_items i SET state = 'running', turn_id = k.new_turn, started_at = clock_timestamp()
    FROM taken k WHERE i.job_id = k.job_id AND i.position = k.position
    RETURNING i.turn_id, i.note
), skipped AS (
    UPDATE replay_items i SET state = 'skipped', note = d.outcome, started_at = clock_timestamp(),
                              ended_at = clock_timestamp()
    FROM decided d
    WHERE d.outcome NOT IN ('answer', 'again') AND i.job_id = d.job_id AND i.position = d.position
    RETURNING i.turn_id, i.note
), gone AS (
    UPDATE replay_items i SET state = 'skipped', note = 'gone', ended_at = clock_timestamp()
    FROM picked p WHERE p.position NOT IN (SELECT position FROM decided)
      AND i.job_id = p.job_id AND i.position = p.position
    RETURNING i.turn_id, i.note
)
SELECT turn_id::text AS turn_id, note FROM started UNION ALL SELECT turn_id::text, note FROM skipped
UNION ALL SELECT turn_id::text, note FROM gone
""")  # noqa: S608  (constants only)

_LOOK = text(f"""
SELECT i.position, coalesce(t.history, '[]') AS history, {HISTORY_SQL} AS past,
       CASE WHEN l.dead_letter_id IS NULL THEN 'gone' ELSE {SHADOWED} END AS outcome
FROM ({_PICKED.format(held="")}) i
LEFT JOIN LATERAL (SELECT * FROM dead_letters WHERE dead_letter_id = i.dead_letter_id OFFSET 0) l ON true
LEFT JOIN turns t ON t.turn_id = l.turn_id
""")  # noqa: S608

# Not by `state`: while there are no statistics that would read every waiting item, by the index that has only those.
_SHADOW = text(f"""
WITH {_HELD}, given AS (
    SELECT * FROM unnest(CAST(:positions AS int[]), CAST(:histories AS jsonb[]), CAST(:outcomes AS text[]))
        AS g(position, history, outcome)
), item AS (
    UPDATE replay_items i
    SET state = CASE WHEN g.outcome = 'answer' THEN 'running' ELSE 'skipped' END,
        turn_id = CASE WHEN g.outcome = 'answer' THEN
            CAST(overlay(overlay(encode(substring(sha256(convert_to(
                i.dead_letter_id::text || '/' || i.job_id || '/' || job.mode, 'UTF8')) FOR 16), 'hex')
                PLACING '8' FROM 13) PLACING '8' FROM 17) AS uuid) END,
        note = CASE WHEN g.outcome <> 'answer' THEN g.outcome END, started_at = clock_timestamp(),
        ended_at = CASE WHEN g.outcome <> 'answer' THEN clock_timestamp() END
    FROM job CROSS JOIN given g
    WHERE i.job_id = job.job_id AND i.position = g.position AND i.started_at IS NULL AND i.ended_at IS NULL
    RETURNING i.*, g.history, job.tenant_id, job.mode, '{REPLAY_PREFIX}' || i.job_id || '.' || i.position AS room
), room AS (
    INSERT INTO conversations (tenant_id, conversation_id, last_seq)
    SELECT tenant_id, room, 1 FROM item WHERE state = 'running' ORDER BY 1, 2
), inserted AS (
    INSERT INTO turns {_COPIED}
    SELECT i.turn_id, i.tenant_id, i.room, 1, t.channel, {asked("t")}, t.metadata, i.history, t.body_sha256,
           t.kafka_topic, t.kafka_partition, t.kafka_offset, 'received',
           clock_timestamp() + make_interval(secs => :waiting), i.dead_letter_id, i.mode
    FROM item i JOIN dead_letters l ON l.dead_letter_id = i.dead_letter_id JOIN turns t ON t.turn_id = l.turn_id
    WHERE i.state = 'running'
    RETURNING turn_id
), event AS (
    INSERT INTO turn_events (turn_id, to_state, epoch, actor, note)
    SELECT turn_id, 'received', 0, :owner, 'replay' FROM inserted
)
SELECT turn_id::text AS turn_id, note FROM item
""")  # noqa: S608

# Back on the topic exactly once: the letter's state and the outbox change together.
_SEND_BACK = text(f"""
WITH {_HELD}, picked AS (
    SELECT i.job_id, i.position, i.dead_letter_id FROM replay_items i JOIN job USING (job_id)
    WHERE i.state = 'waiting' AND i.conversation_id IS NULL ORDER BY i.position LIMIT :batch
), decided AS (
    SELECT p.*, d.key, d.value, d.headers, CASE
        WHEN job.mode <> 'deliver' THEN 'never_a_turn' WHEN l.state = 'discarded' THEN 'discarded'
        WHEN l.state <> 'unanswered' THEN 'already_answered' WHEN d.value IS NULL THEN 'gone' ELSE 'answer'
    END AS outcome
    FROM picked p CROSS JOIN job JOIN dead_letters l ON l.dead_letter_id = p.dead_letter_id
    LEFT JOIN dead_records d ON d.dead_letter_id = p.dead_letter_id
), taken AS (
    UPDATE dead_letters l SET state = 'replayed', replays = l.replays + 1, updated_at = clock_timestamp()
    FROM decided d WHERE d.outcome = 'answer' AND l.dead_letter_id = d.dead_letter_id AND l.state = 'unanswered'
    RETURNING d.*
), sent AS (
    INSERT INTO outbox (topic, key, headers, value, original_headers)
    SELECT :topic, key, CAST('[]' AS jsonb), value, headers FROM taken ORDER BY position
)
UPDATE replay_items i
SET state = CASE WHEN k.position IS NULL THEN 'skipped' ELSE 'answered' END,
    note = CASE WHEN k.position IS NOT NULL THEN 'sent_back' WHEN d.outcome = 'answer' THEN 'already_answered'
           ELSE d.outcome END, started_at = clock_timestamp(), ended_at = clock_timestamp()
FROM decided d LEFT JOIN taken k ON k.position = d.position
WHERE i.job_id = d.job_id AND i.position = d.position
RETURNING NULL AS turn_id, i.note
""")  # noqa: S608

# Any process books any job's endings, also after a pause or an abort: what was started is always accounted for.
_BOOK = text("""
WITH ended AS (
    SELECT i.job_id, i.position, i.dead_letter_id, i.turn_id, t.state, coalesce(t.reason, t.state) AS reason, j.mode,
           t.done_at, t.state IN ('answered', 'truncated') AS well
    FROM replay_items i JOIN turns t ON t.turn_id = i.turn_id JOIN replay_jobs j ON j.job_id = i.job_id
    WHERE i.state = 'running' AND t.done_at IS NOT NULL
    ORDER BY i.turn_id LIMIT :batch FOR UPDATE OF i SKIP LOCKED
), booked AS (
    UPDATE replay_items i SET state = CASE WHEN e.well THEN 'answered' ELSE 'failed' END, ended_at = e.done_at,
                              note = CASE WHEN e.state <> 'answered' THEN e.reason END
    FROM ended e WHERE i.job_id = e.job_id AND i.position = e.position
    RETURNING i.job_id
), letter AS (
    UPDATE dead_letters l
    SET state = CASE WHEN e.well THEN 'replayed' ELSE l.state END,
        replays = l.replays + CASE WHEN e.well THEN 0 ELSE 1 END, updated_at = clock_timestamp()
    FROM ended e WHERE e.mode = 'deliver' AND l.dead_letter_id = e.dead_letter_id AND l.replay_turn = e.turn_id
)
SELECT e.mode, e.well, count(*) AS n FROM ended e GROUP BY 1, 2
""")

_REVIEW = text(f"""
WITH counted AS (
    SELECT count(*) FILTER (WHERE state IN ('waiting', 'running')) AS open,
           count(*) FILTER (WHERE state = 'failed') AS failed,
           count(*) FILTER (WHERE state IN ('answered', 'failed')) AS ended
    FROM replay_items WHERE job_id = CAST(:job AS uuid)
), ended AS (
    UPDATE replay_jobs j
    SET state = CASE WHEN c.open = 0 THEN 'finished' ELSE 'stopped' END, ended_at = clock_timestamp(),
        reason = CASE WHEN c.open > 0 THEN c.failed || ' of ' || c.ended || ' replays failed' END
    FROM counted c
    WHERE j.job_id = CAST(:job AS uuid) AND j.state = 'running' AND j.owner = :owner
      AND (c.open = 0 OR (c.ended >= {ENOUGH} AND c.failed * 100 > j.stop_percent * c.ended))
    RETURNING j.job_id, j.state
), left_out AS (
    UPDATE replay_items i SET state = 'skipped', note = 'stopped', ended_at = clock_timestamp()
    FROM ended e WHERE e.state = 'stopped' AND i.job_id = e.job_id AND i.state = 'waiting'
)
SELECT state FROM ended
""")  # noqa: S608


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that is ours until its lease ends."""

    job_id: str
    mode: ReplayMode
    rate: float
    """Dead letters a second."""
    records: bool
    """Whether records that never became turns wait in it."""
    under_way: int


@dataclass(frozen=True, slots=True)
class Looked:
    """An item to be answered for the record, with what was said before its turn."""

    position: int
    outcome: Outcome
    past: tuple[PastTurn, ...]
    brought: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Started:
    """What one step did."""

    turns: tuple[TurnId, ...]
    """New turns, to be announced."""
    skipped: int
    sent_back: int

    @property
    def items(self) -> int:
        """How many items it moved."""
        return len(self.turns) + self.skipped + self.sent_back


@dataclass(frozen=True, slots=True)
class Booked:
    """So many replays of a mode ended, well or not."""

    mode: ReplayMode
    well: bool
    n: int


class ReplayRuns:
    """One process's side of the jobs."""

    def __init__(self, engine: AsyncEngine, *, owner: str, lease: float, waiting: float, history: int) -> None:
        self._engine = engine
        self._owner = owner
        self._lease = lease
        self._waiting = waiting
        self._history = history

    async def lease(self, most: int) -> list[HeldJob]:
        """Take, or keep, up to `most` running jobs, also those of a process that was lost."""
        values = {"owner": self._owner, "lease": self._lease, "most": most}
        return [HeldJob(**dict(r)) for r in await rows(self._engine, _LEASE, values)]

    async def deliver(self, job: HeldJob, batch: int) -> Started:
        """Start up to `batch` replays in their own conversations, or say why not."""
        return await self._started(_DELIVER, job, {"batch": batch, "waiting": self._waiting})

    async def look(self, job: HeldJob, batch: int) -> list[Looked]:
        """Return up to `batch` items whose turn it is, and what to tell the model."""
        values = {"job": job.job_id, "batch": batch, "history": self._history}
        return [
            Looked(r["position"], r["outcome"], past_turns(r["past"]), brought_along(r["history"]))
            for r in await rows(self._engine, _LOOK, values)
        ]

    async def shadow(
        self, job: HeldJob, items: Sequence[Looked], histories: Sequence[Sequence[tuple[str, str]]]
    ) -> Started:
        """Start replays in conversations of their own, each with its history as (role, text)."""
        told = [json.dumps([{"role": role, "text": text} for role, text in history]) for history in histories]
        values: dict[str, object] = {
            "positions": [item.position for item in items],
            "histories": told,
            "outcomes": [item.outcome for item in items],
            "waiting": self._waiting,
        }
        return await self._started(_SHADOW, job, values)

    async def send_back(self, job: HeldJob, batch: int) -> Started:
        """Put records that never became turns back on their topic, or say why not."""
        return await self._started(_SEND_BACK, job, {"batch": batch, "topic": TOPIC_TURNS})

    async def book(self, batch: int) -> list[Booked]:
        """Write down how up to `batch` replays of any job ended."""
        return [Booked(**dict(r)) for r in await rows(self._engine, _BOOK, {"batch": batch})]

    async def review(self, job: HeldJob) -> str | None:
        """End the job if nothing is left, or stop it if too much failed; returns its new state, if it has one."""
        found = await row(self._engine, _REVIEW, {"job": job.job_id, "owner": self._owner})
        return str(found["state"]) if found else None

    async def _started(self, statement: TextClause, job: HeldJob, values: dict[str, object]) -> Started:
        found = await rows(self._engine, statement, {"job": job.job_id, "owner": self._owner, **values})
        return _started(found)


def _started(found: Sequence[RowMapping]) -> Started:
    notes = [r["note"] for r in found if r["turn_id"] is None]
    sent_back = notes.count("sent_back")
    turns = tuple(TurnId(r["turn_id"]) for r in found if r["turn_id"] is not None)
    return Started(turns, skipped=len(notes) - sent_back, sent_back=sent_back)
