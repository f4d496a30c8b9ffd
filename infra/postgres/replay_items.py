"""What became of each dead letter of a replay job, old answer beside new."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.audit import AUDITED
from infra.postgres.statements import rows

# The model of an answer is that of the attempt that wrote it, or of the last one that was tried.
_ANSWER: Final = """
SELECT t.turn_id::text AS {name}_turn, t.state AS {name}_state, t.agent AS {name}_agent,
       t.content || coalesce(t.closing, '') AS {name}_html,
       extract(epoch FROM t.done_at - t.created_at)::float AS {name}_seconds,
       (SELECT a.model FROM attempts a WHERE a.turn_id = t.turn_id
        ORDER BY (a.state IN ('succeeded', 'streaming')) DESC, a.ordinal DESC LIMIT 1) AS {name}_model,
       (SELECT sum(a.input_tokens + a.output_tokens) FROM attempts a WHERE a.turn_id = t.turn_id) AS {name}_tokens
FROM turns t WHERE t.turn_id = {turn}
"""
_ITEMS: Final = f"""
SELECT i.position, i.dead_letter_id::text AS dead_letter_id, i.conversation_id, i.state, i.note, i.started_at,
       i.ended_at, old.*, new.*
FROM replay_jobs j JOIN replay_items i ON i.job_id = j.job_id
LEFT JOIN dead_letters l ON l.dead_letter_id = i.dead_letter_id
LEFT JOIN LATERAL ({_ANSWER.format(name="old", turn="l.turn_id")}) old ON true
LEFT JOIN LATERAL ({_ANSWER.format(name="new", turn="i.turn_id")}) new ON true
WHERE j.job_id = CAST(:job AS uuid) AND j.tenant_id = :tenant AND i.position > :after
  AND (CAST(:state AS text) IS NULL OR i.state = :state)
ORDER BY i.position LIMIT :limit
"""  # noqa: S608  (constants only)
_LIST = text(_ITEMS)
_REVEAL = text(f"""
WITH found AS ({_ITEMS}), looked AS (SELECT count(*) AS n, min(position) AS first, max(position) AS last FROM found),
{AUDITED.format(subject=":job", detail="jsonb_build_object('from', first, 'to', last)", what="looked WHERE n > 0")}
SELECT * FROM found ORDER BY position
""")  # noqa: S608  (constants only)


@dataclass(frozen=True, slots=True)
class AnswerView:
    """How one turn ended."""

    turn_id: str
    state: str
    agent: str | None
    model: str | None
    html: str = field(repr=False)
    tokens: int | None
    seconds: float | None
    """From recording to end; None while the turn is open."""


@dataclass(frozen=True, slots=True)
class ItemView:
    """One dead letter of a job."""

    position: int
    dead_letter_id: str
    conversation_id: str | None
    state: str
    note: str | None
    started_at: datetime | None
    ended_at: datetime | None
    old: AnswerView | None
    """Its own turn; None where it never was one."""
    new: AnswerView | None
    """The replay; None before it begins and where it was skipped."""


async def load_items(
    engine: AsyncEngine,
    *,
    tenant: str,
    job_id: str,
    state: str | None,
    after: int,
    limit: int,
    reveal_to: str | None = None,
) -> list[ItemView]:
    """Return a job's items behind a position, in order.

    Args:
        engine: the ledger.
        tenant: whose job it is.
        job_id: the job.
        state: only items in this state.
        after: the position before the first one wanted.
        limit: at most so many.
        reveal_to: the operator who is about to see the answers' texts; written down in the same statement.
    """
    values: dict[str, object] = {"tenant": tenant, "job": job_id, "state": state, "after": after, "limit": limit}
    if reveal_to is None:
        found = await rows(engine, _LIST, values)
    else:
        found = await rows(engine, _REVEAL, values | {"operator": reveal_to, "verb": "replay_revealed"})
    return [_item(r) for r in found]


def _item(found: RowMapping) -> ItemView:
    return ItemView(
        position=found["position"],
        dead_letter_id=found["dead_letter_id"],
        conversation_id=found["conversation_id"],
        state=found["state"],
        note=found["note"],
        started_at=found["started_at"],
        ended_at=found["ended_at"],
        old=_answer(found, "old"),
        new=_answer(found, "new"),
    )


def _answer(found: RowMapping, name: str) -> AnswerView | None:
    if found[f"{name}_turn"] is None:
        return None
    return AnswerView(
        turn_id=found[f"{name}_turn"],
        state=found[f"{name}_state"],
        agent=found[f"{name}_agent"],
        model=found[f"{name}_model"],
        html=found[f"{name}_html"],
        tokens=found[f"{name}_tokens"],
        seconds=found[f"{name}_seconds"],
    )
