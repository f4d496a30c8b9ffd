"""The agent worker's side: taking a turn (T5, T5b, T16), its latches (T6, T7), keeping its lease."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.coalescing import asked
from infra.postgres.inbox import HISTORY_SQL, PastTurn, brought_along, past_turns
from infra.postgres.keepers import keeper_of
from infra.postgres.letters import LETTER_COLUMNS, letter_ctes
from infra.postgres.statements import row, rows
from schemas.agents import Agent
from schemas.briefs import NO_BRIEF, Brief
from schemas.dead_letters import DeadLetterReason
from schemas.ids import TurnId
from schemas.policy import Deadlines

_RETURNED = f"""
SELECT t.turn_id::text, t.tenant_id, t.conversation_id, t.seq, t.epoch, t.channel, {asked("t")} AS input_text,
       t.history, t.traceparent, t.agent, t.plan ->> 'primary' AS primary, t.plan ->> 'fallback' AS fallback,
       t.plan -> 'brief' AS brief, l.ordinal, l.model, extract(epoch FROM t.created_at)::bigint AS created,
       extract(epoch FROM clock_timestamp() - t.head_at)::float AS waited,
       extract(epoch FROM t.deadline_at - clock_timestamp())::float AS remaining,
       extract(epoch FROM clock_timestamp() - t.created_at)::float AS age,
       {HISTORY_SQL} AS past
FROM claimed t CROSS JOIN ledger l
"""  # noqa: S608  (constants only)

_VERSIONS: Final = "CAST(:policy AS int), CAST(:prompts AS jsonb) ->> agent"

# The attempt is in the ledger in the same statement that takes the turn: before any request leaves.
_CLAIM = text(f"""
WITH picked AS (
    SELECT t.turn_id, t.tenant_id, t.conversation_id, c.force_frontier_next AS forced,
           c.force_frontier_next OR (t.plan ->> 'direct')::boolean OR :direct AS direct
    FROM turns t JOIN conversations c USING (tenant_id, conversation_id)
    WHERE t.turn_id = CAST(:turn_id AS uuid) AND t.state = 'queued' AND t.deadline_at > clock_timestamp()
      AND c.keeper = 'agent'
    FOR UPDATE OF t, c
), claimed AS (
    UPDATE turns t
    SET state = CASE WHEN p.direct THEN 'fallback' ELSE 'running' END, epoch = t.epoch + 1, owner = :owner,
        lease_until = clock_timestamp() + make_interval(secs => :lease)
    FROM picked p WHERE t.turn_id = p.turn_id
    RETURNING t.*, p.direct
), unforced AS (
    UPDATE conversations c SET force_frontier_next = false FROM picked p
    WHERE p.forced AND c.tenant_id = p.tenant_id AND c.conversation_id = p.conversation_id
), ledger AS (
    INSERT INTO attempts (turn_id, ordinal, epoch, model, policy, prompt)
    SELECT turn_id, CASE WHEN direct THEN 2 ELSE 1 END, epoch,
           plan ->> CASE WHEN direct THEN 'fallback' ELSE 'primary' END, {_VERSIONS}
    FROM claimed
    RETURNING ordinal, model
), event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor, note)
    SELECT turn_id, 'queued', state, epoch, :owner, CAST(:note AS text) FROM claimed
)
{_RETURNED}
""")  # noqa: S608

_RESCUE = text(f"""
WITH claimed AS (
    UPDATE turns t
    SET state = 'fallback', epoch = t.epoch + 1, owner = :owner,
        lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE t.turn_id = CAST(:turn_id AS uuid) AND t.state = 'rescue' AND t.deadline_at > clock_timestamp()
      AND t.reason IS DISTINCT FROM 'budget' AND {keeper_of("t")} = 'agent'
      AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.turn_id = t.turn_id AND a.ordinal = 2)
    RETURNING t.*
), unforced AS (
    -- What a truncated predecessor asked for happens here too: its next turn goes to the frontier.
    UPDATE conversations c SET force_frontier_next = false FROM claimed t
    WHERE c.force_frontier_next AND c.tenant_id = t.tenant_id AND c.conversation_id = t.conversation_id
), ledger AS (
    INSERT INTO attempts (turn_id, ordinal, epoch, model, policy, prompt, rescue)
    SELECT turn_id, 2, epoch, plan ->> 'fallback', {_VERSIONS}, true FROM claimed
    RETURNING ordinal, model
), event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor)
    SELECT turn_id, 'rescue', state, epoch, :owner FROM claimed
)
{_RETURNED}
""")  # noqa: S608

_FALLBACK = text(f"""
WITH moved AS (
    UPDATE turns t SET state = 'fallback', lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE turn_id = CAST(:turn_id AS uuid) AND epoch = :epoch AND state = 'running'
      AND {keeper_of("t")} = 'agent'
    RETURNING {LETTER_COLUMNS}, 'running' AS from_state
), failed AS (
    UPDATE attempts a SET state = 'failed', error = :error, ended_at = clock_timestamp()
    FROM moved m WHERE a.turn_id = m.turn_id AND a.ordinal = 1
), ledger AS (
    INSERT INTO attempts (turn_id, ordinal, epoch, model, policy, prompt)
    SELECT turn_id, 2, epoch, plan ->> 'fallback', {_VERSIONS} FROM moved
), {letter_ctes("moved", reason="CAST(:letter AS text)", error="CAST(:error AS text)")}, event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor, note)
    SELECT turn_id, 'running', 'fallback', epoch, :actor, :error FROM moved
)
SELECT turn_id FROM moved
""")  # noqa: S608

# A takeover changes the conversation's row: whichever of the two comes first, the other one waits for it and sees it.
_VISIBLE = text("""
WITH old AS (
    SELECT turn_id, state, tenant_id, conversation_id FROM turns WHERE turn_id = CAST(:turn_id AS uuid) FOR UPDATE
), kept AS (
    SELECT c.keeper FROM conversations c JOIN old USING (tenant_id, conversation_id) FOR SHARE OF c
), moved AS (
    UPDATE turns SET state = 'streaming', visible_at = clock_timestamp(),
                     lease_until = clock_timestamp() + make_interval(secs => :lease)
    FROM old, kept
    WHERE turns.turn_id = old.turn_id AND epoch = :epoch AND turns.state IN ('running', 'fallback')
      AND kept.keeper = 'agent'
    RETURNING turns.turn_id, epoch, old.state AS from_state
), streaming AS (
    UPDATE attempts a SET state = 'streaming' FROM moved m WHERE a.turn_id = m.turn_id AND a.ordinal = :ordinal
), event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor)
    SELECT turn_id, from_state, 'streaming', epoch, :owner FROM moved
)
SELECT turn_id FROM moved
""")

# A turn that a person took over before it showed anything is let go: what is asked for it is asked in vain.
_RENEW = text(f"""
UPDATE turns t
SET lease_until = clock_timestamp() + make_interval(secs => :lease),
    content = CASE WHEN t.state = 'streaming' THEN u.content ELSE t.content END,
    cuts = CASE WHEN t.state = 'streaming' THEN string_to_array(u.cuts, ',')::int[] ELSE t.cuts END
FROM unnest(CAST(:turn_ids AS uuid[]), CAST(:epochs AS int[]), CAST(:contents AS text[]), CAST(:cuts AS text[]))
     AS u(turn_id, epoch, content, cuts)
WHERE t.turn_id = u.turn_id AND t.epoch = u.epoch AND t.done_at IS NULL
  AND (t.state = 'streaming' OR {keeper_of("t")} = 'agent')
RETURNING t.turn_id::text
""")  # noqa: S608

# A turn that its own epoch has settled meanwhile is not lost: its worker may still be telling the end. Asked after
# the renewal and not in it: that statement may have waited for the settlement, and would not see what it wrote.
_ENDED = text("""
SELECT t.turn_id::text FROM unnest(CAST(:turn_ids AS uuid[]), CAST(:epochs AS int[])) AS u(turn_id, epoch)
JOIN turns t ON t.turn_id = u.turn_id AND t.epoch = u.epoch AND t.done_at IS NOT NULL
""")

_OWNS = text("""
SELECT 1 AS yes FROM turns WHERE turn_id = CAST(:turn_id AS uuid) AND epoch = :epoch AND state = 'streaming'
""")


@dataclass(frozen=True, slots=True)
class Claim:
    """A turn that is ours until its lease ends, with the attempt already in the ledger."""

    turn_id: TurnId
    tenant: str
    conversation_id: str
    seq: int
    epoch: int
    channel: str
    text: str
    """What it asks, with its group."""
    agent: Agent
    ordinal: int
    model: str
    fallback: str
    created: int
    """Unix seconds at which the turn was recorded."""
    waited: float
    """Seconds between dispatch and claim."""
    remaining: float
    """Seconds to the turn's deadline."""
    age: float
    """Seconds between recording and claim."""
    past: tuple[PastTurn, ...]
    brought: tuple[tuple[str, str], ...]
    traceparent: str | None
    brief: Brief = NO_BRIEF
    """What the orchestrator found out."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a live turn has shown so far."""

    turn_id: TurnId
    epoch: int
    content: str
    cuts: tuple[int, ...]


class Claims:
    """Compare-and-set on turns for one worker process."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        deadlines: Deadlines,
        owner: str,
        history: int,
        policy_version: int,
        prompts: Mapping[Agent, str],
    ) -> None:
        """Take turns as `owner`; `prompts` are the versions of the agents' instructions, for the ledger."""
        self._engine = engine
        self._lease = deadlines.lease
        self._owner = owner
        self._history = history
        self._versions = {"policy": policy_version, "prompts": json.dumps(prompts)}

    async def claim(self, turn_id: TurnId, *, skip: str | None = None) -> Claim | None:
        """Take a queued turn and reserve its attempt; None if it is not there to be taken.

        Args:
            turn_id: the turn a hint named.
            skip: why the primary model is skipped, in a word for the turn's history; None to ask it.
        """
        return await self._take(_CLAIM, turn_id, direct=skip is not None, note=skip)

    async def rescue(self, turn_id: TurnId) -> Claim | None:
        """Take a turn that lost its owner or its lane, if its one fallback is unused."""
        return await self._take(_RESCUE, turn_id)

    async def _take(self, statement: TextClause, turn_id: TurnId, **more: bool | str | None) -> Claim | None:
        found = await row(
            self._engine,
            statement,
            {
                "turn_id": turn_id,
                "owner": self._owner,
                "lease": self._lease,
                "history": self._history,
                **self._versions,
                **more,
            },
        )
        return _claim(found) if found else None

    async def latch_fallback(self, claim: Claim, error: str, letter: DeadLetterReason | None = None) -> bool:
        """Record that the primary failed unseen and reserve the fallback. False: the turn is no longer ours.

        Args:
            claim: the turn.
            error: the code of what went wrong.
            letter: why this is to be looked at, even if the fallback answers.
        """
        more: dict[str, object] = {"error": error, "letter": letter, "actor": self._owner, **self._versions}
        return await self._moved(_FALLBACK, claim, more)

    async def latch_visible(self, claim: Claim, ordinal: int) -> bool:
        """The commit point: from now on this attempt's text stays. False: it is not ours, or a person's, by now."""
        return await self._moved(_VISIBLE, claim, {"ordinal": ordinal})

    async def _moved(self, statement: TextClause, claim: Claim, more: dict[str, object]) -> bool:
        values = {"turn_id": claim.turn_id, "epoch": claim.epoch, "owner": self._owner, "lease": self._lease}
        return await row(self._engine, statement, values | more) is not None

    async def owns_stream(self, turn_id: TurnId, epoch: int) -> bool:
        """Tell whether the ledger still names this epoch as the one that streams."""
        return await row(self._engine, _OWNS, {"turn_id": turn_id, "epoch": epoch}) is not None

    async def renew(self, checkpoints: Sequence[Checkpoint]) -> set[TurnId]:
        """Extend the leases of live turns, keep what they showed; returns those still ours, ended by us or not."""
        found = await rows(
            self._engine,
            _RENEW,
            {
                "turn_ids": [c.turn_id for c in checkpoints],
                "epochs": [c.epoch for c in checkpoints],
                "contents": [c.content for c in checkpoints],
                "cuts": [",".join(map(str, c.cuts)) for c in checkpoints],
                "lease": self._lease,
            },
        )
        kept = {TurnId(r["turn_id"]) for r in found}
        if missing := [c for c in checkpoints if c.turn_id not in kept]:
            values = {"turn_ids": [c.turn_id for c in missing], "epochs": [c.epoch for c in missing]}
            kept |= {TurnId(r["turn_id"]) for r in await rows(self._engine, _ENDED, values)}
        return kept


def _claim(r: RowMapping) -> Claim:
    return Claim(
        turn_id=TurnId(r["turn_id"]),
        tenant=r["tenant_id"],
        conversation_id=r["conversation_id"],
        seq=r["seq"],
        epoch=r["epoch"],
        channel=r["channel"],
        text=r["input_text"],
        agent=Agent(r["agent"]),
        ordinal=r["ordinal"],
        model=r["model"],
        fallback=r["fallback"],
        created=r["created"],
        waited=r["waited"] or 0.0,
        remaining=r["remaining"],
        age=r["age"],
        past=past_turns(r["past"]),
        brought=brought_along(r["history"]),
        traceparent=r["traceparent"],
        brief=Brief.model_validate(r["brief"] or {}),
    )
