"""Ending a turn: answer, ledger, outbox and history in one statement (T8 to T11, T15, T17)."""

import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.coalescing import COALESCED, GROUP_ENDED_CTE, GROUP_RESULTS, GROUP_SQL, Absorbed, group_of
from infra.postgres.letters import LETTER_COLUMNS, letter_ctes
from infra.postgres.statements import row
from schemas.agents import Agent
from schemas.citations import NOTHING_READ, Read
from schemas.dead_letters import DeadLetterReason
from schemas.envelope import Envelope, now_rfc3339
from schemas.events import TYPE_TURN_SETTLED, TurnSettled
from schemas.ids import TurnId, new_event_id
from schemas.names import TOPIC_RESULTS, partition_key
from schemas.outcomes import Source
from schemas.turns import TurnState

# What nobody has seen yet shall not be seen once a person has the conversation: its row is looked at, locked, as the
# commit point does. What has been seen stays, and what a person wrote may be.
_SETTLE = text(f"""
WITH old AS (
    SELECT turn_id, state, tenant_id, conversation_id FROM turns WHERE turn_id = CAST(:turn_id AS uuid) FOR UPDATE
), kept AS (
    SELECT c.keeper FROM conversations c JOIN old USING (tenant_id, conversation_id)
    WHERE old.state NOT IN ('streaming', 'sealing') AND CAST(:state AS text) <> 'handed_off'
      AND CAST(:source AS text) <> 'human'
    FOR SHARE OF c
), done AS (
    UPDATE turns t
    SET state = :state, content = :content, cuts = CAST(:cuts AS int[]), closing = :closing, source = :source,
        dimension = :dimension, reason = :reason,
        plan = CASE WHEN CAST(:read AS jsonb) IS NULL THEN t.plan
                    ELSE coalesce(t.plan, '{{}}') || jsonb_build_object('read', CAST(:read AS jsonb)) END,
        done_at = clock_timestamp(), owner = NULL, lease_until = NULL
    FROM old
    WHERE t.turn_id = old.turn_id AND t.epoch = :epoch AND t.state = ANY(CAST(:from_states AS text[]))
      AND NOT EXISTS (SELECT 1 FROM kept WHERE kept.keeper = 'human')
    RETURNING {LETTER_COLUMNS}, t.seq, t.state, old.state AS from_state, t.replay_mode,
              extract(epoch FROM clock_timestamp() - t.created_at) AS took
), {GROUP_ENDED_CTE}, ledger AS (
    UPDATE attempts a
    SET state = CASE WHEN a.ordinal = :ordinal THEN :attempt_state ELSE 'abandoned' END,
        error = CASE WHEN a.ordinal = :ordinal THEN :error ELSE coalesce(a.error, :reason) END,
        input_tokens = CASE WHEN a.ordinal = :ordinal THEN CAST(:input_tokens AS int) END,
        output_tokens = CASE WHEN a.ordinal = :ordinal THEN CAST(:output_tokens AS int) END,
        confidence = CASE WHEN a.ordinal = :ordinal THEN CAST(:confidence AS real) END,
        turns_cut = CASE WHEN a.ordinal = :ordinal THEN :turns_cut ELSE 0 END,
        ended_at = clock_timestamp()
    FROM done d WHERE a.turn_id = d.turn_id AND a.ended_at IS NULL
), forced AS (
    UPDATE conversations c SET force_frontier_next = true FROM done d
    WHERE :force_frontier AND c.tenant_id = d.tenant_id AND c.conversation_id = d.conversation_id
), result AS (
    -- A replay that is not shown to the visitor tells nobody outside either.
    INSERT INTO outbox (topic, key, headers, value, turn_id)
    SELECT :topic, CAST(:key AS bytea), told.headers, told.value, told.turn_id
    FROM (SELECT seq, CAST(:headers AS jsonb) AS headers, CAST(:value AS bytea) AS value, turn_id FROM done
          WHERE replay_mode IS NULL OR replay_mode = 'deliver'
          UNION ALL {GROUP_RESULTS}) told
    ORDER BY told.seq
), {letter_ctes("done", reason="CAST(:letter AS text)", error="CAST(:letter_error AS text)")}, record_let_go AS (
    DELETE FROM turn_records r USING done d
    WHERE r.turn_id = d.turn_id AND CAST(:letter AS text) IS NULL
      AND NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.turn_id = d.turn_id)
), answered_letter AS (
    UPDATE dead_letters l SET state = 'answered_by_fallback', updated_at = clock_timestamp() FROM done d
    WHERE l.turn_id = d.turn_id AND l.state = 'unanswered' AND d.state IN ('answered', 'truncated')
), event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor, note)
    SELECT turn_id, from_state, state, epoch, :actor, coalesce(CAST(:note AS text), :reason) FROM done
)
SELECT d.seq, d.took::float AS took, {GROUP_SQL} AS absorbed,
       (SELECT n.turn_id::text FROM turns n WHERE n.tenant_id = d.tenant_id AND n.conversation_id = d.conversation_id
          AND n.seq > d.seq AND n.state = 'received' AND n.coalesced_into IS NULL ORDER BY n.seq LIMIT 1) AS next
FROM done d
""")  # noqa: S608  (the interpolations are constants of the product)

ANY_UNSEEN: Final = (
    TurnState.RECEIVED,
    TurnState.PREPARING,
    TurnState.QUEUED,
    TurnState.RUNNING,
    TurnState.FALLBACK,
    TurnState.RESCUE,
)
"""States in which nothing has been shown yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How one turn ends. Only the epoch that owns it can write it, and only from `from_states`."""

    turn_id: TurnId
    tenant: str
    conversation_id: str
    seq: int
    channel: str
    agent: Agent | None
    epoch: int
    from_states: tuple[TurnState, ...]
    state: TurnState
    content: str = ""
    text: str = ""
    """The content as plain text, for results."""
    cuts: tuple[int, ...] = ()
    closing: str | None = None
    source: Source = "none"
    dimension: str | None = None
    reason: str | None = None
    ordinal: int | None = None
    attempt_state: str = "abandoned"
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    confidence: float | None = None
    turns_cut: int = 0
    """Past turns left out of the prompt to keep its budget."""
    read: Read = NOTHING_READ
    """What the model was shown of the knowledge base; kept with the plan."""
    force_frontier: bool = False
    letter: DeadLetterReason | None = None
    note: str | None = None
    """For the turn's history, where the reason is not to be."""
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The turn has ended; `next_turn` waited for it."""

    took: float
    """Seconds from recording to here."""
    next_turn: TurnId | None
    absorbed: tuple[Absorbed, ...] = ()
    """Turns that ended with it, in order."""


async def settle(engine: AsyncEngine, s: Settlement, *, actor: str) -> Settled | None:
    """End the turn. None: it is not ours any more, has ended already, or nothing of it was seen and a person has it.

    Raises:
        LedgerUnavailable: it may or may not have ended; asking again is safe.
    """
    value = _result(s)
    key = partition_key(s.tenant, s.conversation_id)
    envelope = Envelope(
        id=new_event_id(),
        type=TYPE_TURN_SETTLED,
        source=f"/fairlead/{actor.split('@')[0]}",
        subject=s.conversation_id,
        tenant=s.tenant,
        partition_key=key,
        time=value.settled_at,
        traceparent=s.traceparent,
    )
    found = await row(
        engine,
        _SETTLE,
        {
            "turn_id": s.turn_id,
            "epoch": s.epoch,
            "from_states": list(s.from_states),
            "state": s.state,
            "content": s.content,
            "cuts": list(s.cuts),
            "closing": s.closing,
            "source": s.source,
            "dimension": s.dimension,
            "reason": s.reason,
            "ordinal": s.ordinal or 0,
            "attempt_state": s.attempt_state,
            "error": s.error,
            "input_tokens": s.input_tokens,
            "output_tokens": s.output_tokens,
            "confidence": s.confidence,
            "turns_cut": s.turns_cut,
            "read": s.read.model_dump_json() if s.read != NOTHING_READ else None,
            "force_frontier": s.force_frontier,
            "letter": s.letter,
            "letter_error": s.error,
            "note": s.note,
            "topic": TOPIC_RESULTS,
            "key": key.encode(),
            "headers": json.dumps([(name, header.decode()) for name, header in envelope.headers()]),
            "value": value.model_dump_json().encode(),
            "group_value": _of_its_group(value).model_dump_json(),
            "actor": actor,
        },
    )
    if found is None:
        return None
    return Settled(
        took=found["took"],
        next_turn=TurnId(found["next"]) if found["next"] else None,
        absorbed=group_of(found["absorbed"]),
    )


def _result(s: Settlement) -> TurnSettled:
    html = s.content + (s.closing or "")
    return TurnSettled.model_validate(
        {
            "turn_id": s.turn_id,
            "tenant_id": s.tenant,
            "conversation_id": s.conversation_id,
            "seq": s.seq,
            "channel": s.channel,
            "state": s.state,
            "agent": s.agent,
            "source": s.source,
            "html": html,
            "text": s.text,
            "reason": s.reason,
            "settled_at": now_rfc3339(),
        }
    )


def _of_its_group(head: TurnSettled) -> TurnSettled:
    """Return the result of a turn that ended with `head`, but for its own id and position."""
    changed = {"agent": None, "source": "none", "html": "", "text": "", "reason": COALESCED}
    return head.model_copy(update={**changed, "answered_in": head.turn_id})
