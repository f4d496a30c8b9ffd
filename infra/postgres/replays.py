"""Replay jobs, for whoever asks for them: what would happen, beginning, watching, pausing, resuming, aborting."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.audit import AUDITED
from infra.postgres.keepers import keeper_of
from infra.postgres.letter_queries import condition_of
from infra.postgres.letter_views import Letter, Owner, load_letters, owned
from infra.postgres.statements import row, rows
from schemas.letter_filter import LetterFilter, parse_filter
from schemas.replays import MAX_REPLAYS, Outcome, ReplayMode

SAMPLE: Final = 5

# Later turns that nobody has answered either are no reason to leave this one unanswered: the job takes them in order.
MOVED_ON: Final = """
EXISTS (SELECT 1 FROM turns n
        WHERE n.tenant_id = t.tenant_id AND n.conversation_id = t.conversation_id AND n.seq > t.seq
          AND n.replay_of IS NULL
          AND (n.done_at IS NULL OR NOT EXISTS (
              SELECT 1 FROM dead_letters o
              WHERE o.turn_id = coalesce(n.coalesced_into, n.turn_id) AND o.state = 'unanswered')))
"""
"""Whether turn `t` has a later one of the visitor that is under way or was answered."""

DELIVERED_TURN: Final = """
CAST(overlay(overlay(encode(substring(sha256(convert_to(
    l.dead_letter_id::text || '/deliver/' || l.replays, 'UTF8')) FOR 16), 'hex')
    PLACING '8' FROM 13) PLACING '8' FROM 17) AS uuid)
"""
"""The turn that the next delivery of letter `l` is: the same for everybody who tries, another after it has failed."""

_ENDED_BY_STATE: Final = """
WHEN l.state IN ('answered_by_fallback', 'replayed') THEN 'already_answered'
WHEN l.state = 'discarded' THEN 'discarded'
WHEN l.state = 'obsolete' AND NOT {late} THEN 'obsolete'
"""
_NO_TURN: Final = """
WHEN l.turn_id IS NULL THEN 'never_a_turn'
WHEN t.turn_id IS NULL THEN 'gone'
WHEN t.done_at IS NULL THEN 'still_open'
"""
SHADOWED: Final = f"CASE WHEN l.state = 'discarded' THEN 'discarded' {_NO_TURN} ELSE 'answer' END"
"""What becomes of letter `l` when its answer is shown to nobody: also one that is answered already is asked again."""


def delivered(*, late: str, keeper: str = keeper_of("t"), unsettled: str = "") -> str:
    """Return SQL for what becomes of letter `l` with turn `t` when its answer is shown.

    Args:
        late: SQL that says whether conversations that moved on are answered too.
        keeper: SQL of who keeps the conversation.
        unsettled: a further `WHEN` for what cannot be decided yet.
    """
    return f"""CASE {_ENDED_BY_STATE.format(late=late)} {_NO_TURN}
    WHEN l.replay_turn = {DELIVERED_TURN} THEN 'being_replayed'
    WHEN l.replays >= {MAX_REPLAYS} THEN 'replayed_too_often'
    WHEN {keeper} = 'human' THEN 'taken_over'
    {unsettled}
    WHEN NOT {late} AND {MOVED_ON} THEN 'moved_on' ELSE 'answer' END"""


_USAGE = text("""
SELECT avg(a.calls)::float AS calls, avg(a.tokens)::float AS tokens,
       avg(extract(epoch FROM t.done_at - t.head_at))::float AS seconds
FROM (SELECT DISTINCT e.turn_id FROM
        (SELECT turn_id, to_state FROM turn_events ORDER BY event_id DESC LIMIT 10000) e
      WHERE e.to_state IN ('answered', 'truncated')) latest
JOIN turns t ON t.turn_id = latest.turn_id AND t.tenant_id = :tenant
CROSS JOIN LATERAL (SELECT count(*) AS calls, sum(input_tokens + output_tokens) AS tokens
                    FROM attempts WHERE turn_id = t.turn_id) a
""")

_JOB: Final = """
SELECT j.job_id::text AS job_id, j.tenant_id AS tenant, j.filter AS where, j.mode, j.rate, j.most, j.stop_percent,
       j.late, j.state, j.reason, j.created_by, j.created_at, j.ended_at, i.*
FROM replay_jobs j CROSS JOIN LATERAL (
    SELECT count(*) AS total, count(*) FILTER (WHERE i.state = 'waiting') AS waiting,
           count(*) FILTER (WHERE i.state = 'running') AS running,
           count(*) FILTER (WHERE i.state = 'answered') AS answered,
           count(*) FILTER (WHERE i.state = 'failed') AS failed,
           count(*) FILTER (WHERE i.state = 'skipped') AS skipped,
           extract(epoch FROM clock_timestamp() - min(i.started_at))::float AS running_for
    FROM replay_items i WHERE i.job_id = j.job_id) i
"""
_LOAD = text(f"{_JOB} WHERE j.job_id = CAST(:job AS uuid) AND j.tenant_id = :tenant")
_LIST = text(f"""
{_JOB} WHERE j.tenant_id = :tenant AND (j.created_at, j.job_id::text) < (CAST(:at AS timestamptz), CAST(:id AS text))
ORDER BY j.created_at DESC, j.job_id::text DESC LIMIT :limit
""")
# The job's row is locked by every start: what stood in the way of this statement is counted as started.
_CHANGE = text(f"""
WITH changed AS (
    UPDATE replay_jobs SET state = :state, ended_at = CASE WHEN :state = 'aborted' THEN clock_timestamp() END
    WHERE job_id = CAST(:job AS uuid) AND tenant_id = :tenant AND state = ANY(CAST(:from_states AS text[]))
    RETURNING job_id, state
), left_out AS (
    UPDATE replay_items i SET state = 'skipped', note = 'aborted', ended_at = clock_timestamp()
    FROM changed c WHERE c.state = 'aborted' AND i.job_id = c.job_id AND i.state = 'waiting'
), {AUDITED.format(subject="job_id::text", detail="CAST('{}' AS jsonb)", what="changed")}
SELECT job_id FROM changed
""")  # noqa: S608  (constants only)

# Oldest first, but the letters of a conversation follow one another in the order of its turns.
_CREATE: Final = f"""
WITH {{matched}}, chosen AS (
    SELECT * FROM matched WHERE outcome IN ('answer', 'never_a_turn', 'moved_on')
    ORDER BY (outcome = 'moved_on'), created_at, dead_letter_id LIMIT :most
), job AS (
    INSERT INTO replay_jobs (tenant_id, filter, mode, rate, most, stop_percent, late, created_by, state, ended_at)
    SELECT :tenant, :where, :mode, CAST(:rate AS real), CAST(:most AS int), CAST(:stop_percent AS real),
           CAST(:late AS boolean), :operator, CASE WHEN n > 0 THEN 'running' ELSE 'finished' END,
           CASE WHEN n = 0 THEN clock_timestamp() END
    FROM (SELECT count(*) AS n FROM chosen) c
    RETURNING job_id
), item AS (
    INSERT INTO replay_items (job_id, position, dead_letter_id, conversation_id)
    SELECT j.job_id, row_number() OVER (ORDER BY c.first_at, c.conversation_id, c.seq, c.dead_letter_id),
           c.dead_letter_id, CASE WHEN c.outcome <> 'never_a_turn' THEN c.conversation_id END
    FROM job j CROSS JOIN (SELECT *, min(created_at) OVER (PARTITION BY conversation_id) AS first_at FROM chosen) c
), {AUDITED.format(subject="job_id::text", detail="CAST(:detail AS jsonb)", what="job")}
SELECT job_id::text FROM job
"""  # noqa: S608  (constants only; the one hole left is the letters meant)

_SAMPLED: Final = """
SELECT dead_letter_id::text AS id FROM matched WHERE outcome = 'answer'
ORDER BY created_at, dead_letter_id LIMIT :sample
"""

_FROM: Final[dict[str, tuple[str, ...]]] = {
    "paused": ("running",),
    "running": ("paused",),
    "aborted": ("running", "paused"),
}
_VERBS: Final = {"paused": "replay_paused", "running": "replay_resumed", "aborted": "replay_aborted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """What an operator asks for."""

    where: str
    mode: ReplayMode
    rate: float
    """Dead letters a second at most."""
    most: int
    stop_percent: float
    late: bool


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a job would do, were it to begin now."""

    counts: dict[Outcome, int]
    sample: tuple[Letter, ...]
    model_calls: float
    """Expected, as recent turns of the tenant needed."""
    tokens: float | None
    """Expected; None where no model said what it used."""
    seconds: float


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """A job and how far it is."""

    job_id: str
    tenant: str
    where: str
    mode: ReplayMode
    rate: float
    most: int
    stop_percent: float
    late: bool
    state: Literal["running", "paused", "finished", "aborted", "stopped"]
    reason: str | None
    created_by: str
    created_at: datetime
    ended_at: datetime | None
    total: int
    waiting: int
    running: int
    answered: int
    failed: int
    skipped: int
    running_for: float | None
    """Seconds since its first replay began."""

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to its end if it goes on as it has; None when it has ended or does not run."""
        if self.state != "running":
            return None
        ended = self.answered + self.failed
        seen = ended / self.running_for if self.running_for and ended else self.rate
        return (self.waiting + self.running) / min(seen, self.rate)


async def plan(engine: AsyncEngine, owner: Owner, request: ReplayRequest) -> ReplayPlan:
    """Return what the job would do; changes nothing.

    Raises:
        FilterError: the filter says nothing.
        LedgerUnavailable: nothing is known.
    """
    chosen = parse_filter(request.where)
    matched, values = _matched(owner, chosen, request)
    counted = text(f"WITH {matched} SELECT outcome, count(*) AS n FROM matched GROUP BY outcome")  # noqa: S608
    counts: dict[Outcome, int] = {found["outcome"]: found["n"] for found in await rows(engine, counted, values)}
    taken = text(f"WITH {matched} {_SAMPLED}")
    ids = [found["id"] for found in await rows(engine, taken, values | {"sample": SAMPLE})]
    [usage] = await rows(engine, _USAGE, {"tenant": owner.tenant})
    answers = min(counts.get("answer", 0), request.most)
    return ReplayPlan(
        counts=counts,
        sample=tuple(await load_letters(engine, owner, ids)),
        model_calls=answers * (usage["calls"] or 1.0),
        tokens=answers * usage["tokens"] if usage["tokens"] is not None else None,
        seconds=answers / request.rate + (usage["seconds"] or 0.0 if answers else 0.0),
    )


async def create(engine: AsyncEngine, owner: Owner, request: ReplayRequest, *, operator: str) -> str:
    """Begin a job and return its id. What it will not touch is no item of it.

    Raises:
        FilterError: the filter says nothing.
        LedgerUnavailable: it may or may not have begun; list the jobs before asking again.
    """
    matched, values = _matched(owner, parse_filter(request.where), request)
    statement = text(_CREATE.format(matched=matched))
    [found] = await rows(engine, statement, values | _asked(request, owner, operator))
    return str(found["job_id"])


def _asked(request: ReplayRequest, owner: Owner, operator: str) -> dict[str, object]:
    asked: dict[str, object] = {
        "where": request.where,
        "mode": request.mode,
        "rate": request.rate,
        "most": request.most,
        "stop_percent": request.stop_percent,
        "late": request.late,
    }
    recorded = {"operator": operator, "verb": "replay_created", "detail": json.dumps(asked)}
    return {**asked, **recorded, "tenant": owner.tenant}


async def load_job(engine: AsyncEngine, *, tenant: str, job_id: str) -> ReplayJob | None:
    """Return the tenant's job of this id."""
    found = await row(engine, _LOAD, {"tenant": tenant, "job": job_id})
    return _job(found) if found else None


async def list_jobs(engine: AsyncEngine, *, tenant: str, before: tuple[datetime, str], limit: int) -> list[ReplayJob]:
    """Return the tenant's jobs that began before one (its beginning and id), latest first."""
    at, job_id = before
    return [_job(r) for r in await rows(engine, _LIST, {"tenant": tenant, "at": at, "id": job_id, "limit": limit})]


async def change(
    engine: AsyncEngine,
    *,
    tenant: str,
    job_id: str,
    state: Literal["paused", "running", "aborted"],
    operator: str,
) -> bool:
    """Pause, resume or abort. False: the job is in no state from which that can be done. It starts nothing after it."""
    values = {
        "tenant": tenant,
        "job": job_id,
        "state": state,
        "from_states": list(_FROM[state]),
        "operator": operator,
        "verb": _VERBS[state],
    }
    return await row(engine, _CHANGE, values) is not None


def _matched(owner: Owner, chosen: LetterFilter, request: ReplayRequest) -> tuple[str, dict[str, object]]:
    """Return the part of a statement with every letter meant and what becomes of it, and its parameters."""
    condition = condition_of(chosen)
    outcome = delivered(late="CAST(:late AS boolean)") if request.mode == "deliver" else SHADOWED
    # The letter of a replay is the replay's own ending: answering it would be replaying a replay.
    matched = f"""matched AS (
        SELECT l.dead_letter_id, l.conversation_id, l.created_at, t.seq, {outcome} AS outcome
        FROM dead_letters l LEFT JOIN turns t ON t.turn_id = l.turn_id
        WHERE {owned(owner)} AND t.replay_of IS NULL AND {condition.sql}
    )"""  # noqa: S608  (values are bound; what is put in is ours)
    values = {**condition.values, "tenant": owner.tenant}
    return matched, values | ({"late": request.late} if request.mode == "deliver" else {})


def _job(found: RowMapping) -> ReplayJob:
    return ReplayJob(**dict(found))
