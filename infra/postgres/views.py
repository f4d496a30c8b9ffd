"""Reading turns: for watchers, who need every frame told again, and for operators, who need to know why."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, cast

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import row, rows
from schemas.agents import Agent
from schemas.briefs import Brief
from schemas.citations import Cited
from schemas.frames import PHASE_OF_STATE, Phase, TurnStreamInfo, WireFrame, frames_of
from schemas.ids import TurnId
from schemas.keepers import Keeper
from schemas.outcomes import Source
from schemas.replays import ReplayMode
from schemas.turns import TERMINAL, TurnState

TRANSCRIPT_TURNS: Final = 200
"""Turns of a transcript, the latest ones."""

_COLUMNS = """
turn_id::text AS turn_id, tenant_id, conversation_id, seq, channel, input_text, state, agent,
plan IS NOT NULL AS planned, content, cuts, closing, source, dimension, reason,
extract(epoch FROM created_at)::bigint AS created, created_at, head_at, visible_at, done_at, deadline_at, epoch,
coalesced_into::text AS answered_in, said_by, plan #> '{read,cited}' AS cited
"""

_TURN: Final = text(f"SELECT {_COLUMNS} FROM turns WHERE turn_id = CAST(:turn_id AS uuid)")  # noqa: S608
_TRANSCRIPT: Final = text(f"""
SELECT * FROM (
    SELECT {_COLUMNS} FROM turns WHERE tenant_id = :tenant AND conversation_id = :conversation
    ORDER BY seq DESC LIMIT :limit
) latest ORDER BY seq
""")  # noqa: S608  (the only interpolation is the constant above)
_CONVERSATION: Final = text("""
SELECT created_at, last_seq FROM conversations WHERE tenant_id = :tenant AND conversation_id = :conversation
""")
_RECENT: Final = text("""
SELECT turn_id::text AS turn_id FROM (
    SELECT turn_id, seq, created_at FROM turns WHERE tenant_id = :tenant AND conversation_id = :conversation
    ORDER BY seq DESC LIMIT :limit
) latest WHERE created_at > clock_timestamp() - make_interval(secs => :seconds) ORDER BY seq
""")
_ATTEMPTS: Final = text("""
SELECT ordinal, epoch, model, rescue, state, error, input_tokens, output_tokens, confidence, turns_cut,
       reserved_at, ended_at
FROM attempts WHERE turn_id = CAST(:turn_id AS uuid) ORDER BY ordinal
""")
_EVENTS: Final = text("""
SELECT at, from_state, to_state, epoch, actor, note
FROM turn_events WHERE turn_id = CAST(:turn_id AS uuid) ORDER BY event_id
""")
# A result is written with its turn's end, so that a turn that ended and waits for nothing has been published. Asked
# that way round the question needs only the index of what waits, however long the outbox has become.
_WHEREABOUTS: Final = text("""
SELECT clock_timestamp() AS as_of, t.owner, t.lease_until, t.hints, t.hinted_at, t.kafka_topic, t.kafka_partition,
       t.kafka_offset, t.traceparent, t.plan ->> 'primary' AS primary, t.plan ->> 'fallback' AS fallback,
       coalesce((t.plan ->> 'direct')::boolean, false) AS direct, t.plan ->> 'why' AS why,
       t.plan -> 'brief' AS brief, (t.plan ->> 'policy')::int AS policy,
       (SELECT p.turn_id::text FROM turns p WHERE p.tenant_id = t.tenant_id AND p.conversation_id = t.conversation_id
          AND p.seq < t.seq AND p.done_at IS NULL ORDER BY p.seq LIMIT 1) AS behind,
       t.replay_of::text AS replay_of, t.replay_mode,
       (SELECT l.turn_id::text FROM dead_letters l WHERE l.dead_letter_id = t.replay_of) AS replayed_turn,
       (SELECT i.job_id::text FROM replay_items i WHERE i.dead_letter_id = t.replay_of AND i.turn_id = t.turn_id
          LIMIT 1) AS replay_job,
       EXISTS (SELECT 1 FROM outbox o WHERE o.published_at IS NULL AND o.turn_id = t.turn_id) AS result_waits,
       c.keeper, c.keeper_name, c.keeper_reason, c.keeper_since
FROM turns t JOIN conversations c USING (tenant_id, conversation_id) WHERE t.turn_id = CAST(:turn_id AS uuid)
""")
_LETTERS: Final = text("""
SELECT dead_letter_id::text AS dead_letter_id, reason, stage, state, error, epoch, times, replays, versions, created_at,
       updated_at
FROM dead_letters WHERE turn_id = CAST(:turn_id AS uuid) ORDER BY created_at, dead_letter_id
""")

_REPLAYS: Final = text("""
SELECT j.job_id::text AS job_id, j.mode, i.state, i.note, i.turn_id::text AS turn_id, i.started_at, i.ended_at
FROM dead_letters l JOIN replay_items i ON i.dead_letter_id = l.dead_letter_id JOIN replay_jobs j ON j.job_id = i.job_id
WHERE l.turn_id = CAST(:turn_id AS uuid) ORDER BY j.created_at, j.job_id
""")


@dataclass(frozen=True, slots=True)
class TurnView:
    """A turn as the ledger has it now."""

    turn_id: TurnId
    tenant_id: str
    conversation_id: str
    seq: int
    channel: str
    input_text: str = field(repr=False)
    state: TurnState
    agent: Agent | None
    planned: bool
    """Whether a lane was chosen: the watcher of a planned turn is told `routed`."""
    content: str = field(repr=False)
    cuts: tuple[int, ...]
    closing: str | None = field(repr=False)
    source: Source
    dimension: str | None
    reason: str | None
    created: int
    """Unix seconds at which the turn was recorded, rounded by the database; every frame repeats it."""
    created_at: datetime
    head_at: datetime | None
    visible_at: datetime | None
    done_at: datetime | None
    deadline_at: datetime
    epoch: int
    answered_in: TurnId | None
    """The earlier turn whose answer is also this one's."""
    said_by: str | None = None
    """The person whose message it is; None where a visitor asked."""
    cited: tuple[Cited, ...] = ()
    """Sources of its answer."""

    @property
    def done(self) -> bool:
        """Whether the turn has reached its end."""
        return self.state in TERMINAL

    @property
    def info(self) -> TurnStreamInfo:
        """What every frame of this turn repeats."""
        return TurnStreamInfo(self.turn_id, self.conversation_id, self.created)

    @property
    def html(self) -> str:
        """Everything the visitor was shown, the ending included."""
        return self.content + (_closing(self) or "")


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One model call of a turn."""

    ordinal: int
    epoch: int
    model: str
    rescue: bool
    state: str
    error: str | None
    input_tokens: int | None
    output_tokens: int | None
    confidence: float | None
    turns_cut: int
    """Past turns left out of its prompt."""
    reserved_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventView:
    """One transition of a turn."""

    at: datetime
    from_state: str | None
    to_state: str
    epoch: int
    actor: str
    note: str | None


@dataclass(frozen=True, slots=True)
class LedgerView:
    """What operators see of a turn: its model calls and its history."""

    attempts: tuple[AttemptView, ...]
    events: tuple[EventView, ...]


@dataclass(frozen=True, slots=True)
class LetterView:
    """One dead letter of a turn."""

    dead_letter_id: str
    reason: str
    stage: str
    """State the turn was in."""
    state: str
    error: str | None
    epoch: int | None
    times: int
    """How often the turn left a lane."""
    replays: int
    """How often it was delivered in vain."""
    versions: dict[str, object]
    """Of policy, prompt and model when it was written."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ReplayView:
    """What one job did with the turn's dead letter."""

    job_id: str
    mode: ReplayMode
    state: str
    note: str | None
    turn_id: str | None
    """The turn that answers it anew; None before it begins and where it was skipped."""
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a turn, its event and its result are now."""

    as_of: datetime
    """The database's clock, by which leases and deadlines are judged."""
    owner: str | None
    lease_until: datetime | None
    hints: int
    hinted_at: datetime | None
    kafka_topic: str
    kafka_partition: int
    kafka_offset: int
    traceparent: str | None
    primary: str | None
    """Of its plan; None before it has one."""
    fallback: str | None
    direct: bool
    """Whether the plan skips the primary."""
    why: str | None
    """Why that agent was chosen."""
    brief: Brief | None
    """What the orchestrator found out; None before there is a plan."""
    policy: int | None
    """Version of the policy that the plan follows."""
    behind: TurnId | None
    """The first open turn before it in its conversation: it has to end first."""
    replay_of: str | None
    """The dead letter that it answers anew."""
    replay_mode: ReplayMode | None
    replayed_turn: str | None
    """The turn of that dead letter."""
    replay_job: str | None
    result_waits: bool
    """Whether its result is in the outbox and not yet on Kafka."""
    keeper: Keeper
    """Who answers its conversation now."""
    keeper_name: str | None
    keeper_reason: str | None
    keeper_since: datetime | None
    letters: tuple[LetterView, ...]
    replays: tuple[ReplayView, ...]


async def load_turn(engine: AsyncEngine, turn_id: TurnId) -> TurnView | None:
    """Return the turn, whoever's it is; None when the ledger does not know it (yet).

    Raises:
        LedgerUnavailable: nothing is known about it.
    """
    found = await row(engine, _TURN, {"turn_id": turn_id})
    return _view(found) if found else None


async def load_ledger(engine: AsyncEngine, turn_id: TurnId) -> LedgerView:
    """Return the model calls and the history of a turn.

    Raises:
        LedgerUnavailable: nothing is known about it.
    """
    attempts = await rows(engine, _ATTEMPTS, {"turn_id": turn_id})
    events = await rows(engine, _EVENTS, {"turn_id": turn_id})
    return LedgerView(
        attempts=tuple(AttemptView(**dict(found)) for found in attempts),
        events=tuple(EventView(**dict(found)) for found in events),
    )


async def load_whereabouts(engine: AsyncEngine, turn_id: TurnId) -> Whereabouts | None:
    """Return where a turn, its event, its result, its dead letter and that one's replays are; None for no such turn.

    Raises:
        LedgerUnavailable: nothing is known about it.
    """
    found = await row(engine, _WHEREABOUTS, {"turn_id": turn_id})
    if found is None:
        return None
    letters = await rows(engine, _LETTERS, {"turn_id": turn_id})
    replays = await rows(engine, _REPLAYS, {"turn_id": turn_id}) if letters else ()
    return Whereabouts(
        **{name: value for name, value in found.items() if name != "brief"},
        brief=Brief.model_validate(found["brief"]) if found["brief"] is not None else None,
        letters=tuple(LetterView(**dict(letter)) for letter in letters),
        replays=tuple(ReplayView(**dict(replay)) for replay in replays),
    )


async def load_transcript(
    engine: AsyncEngine, *, tenant: str, conversation: str, limit: int = TRANSCRIPT_TURNS
) -> tuple[TurnView, ...] | None:
    """Return the latest turns of a conversation, oldest first; None when there is no such conversation.

    Raises:
        LedgerUnavailable: nothing is known about it.
    """
    values = {"tenant": tenant, "conversation": conversation}
    if await row(engine, _CONVERSATION, values) is None:
        return None
    return tuple(_view(found) for found in await rows(engine, _TRANSCRIPT, {**values, "limit": limit}))


async def recent_turns(
    engine: AsyncEngine, *, tenant: str, conversation: str, seconds: float, limit: int
) -> list[TurnId]:
    """Return the turns of a conversation recorded within the last `seconds`, the latest `limit` of them, in order.

    Raises:
        LedgerUnavailable: nothing is known about them.
    """
    values = {"tenant": tenant, "conversation": conversation, "seconds": seconds, "limit": limit}
    return [TurnId(found["turn_id"]) for found in await rows(engine, _RECENT, values)]


def frames_of_view(view: TurnView) -> list[WireFrame]:
    """Tell every frame of a turn again, as far as the ledger is sure of it: byte for byte what was streamed.

    Until the turn has ended its content is a checkpoint. It may hold what no log has yet and no watcher may ever see.
    """
    return frames_of(
        view.info,
        routed=view.planned,
        content=view.content if view.done else "",
        cuts=view.cuts if view.done else (),
        ended=PHASE_OF_STATE.get(view.state),
        closing=_closing(view),
        answered_in=view.answered_in,
    )


def _closing(view: TurnView) -> str | None:
    """Return what the terminal frame says; an answered turn's says nothing."""
    ended = PHASE_OF_STATE.get(view.state)
    return None if ended in (None, Phase.DONE) else view.closing


def _view(found: RowMapping) -> TurnView:
    return TurnView(
        turn_id=TurnId(found["turn_id"]),
        tenant_id=found["tenant_id"],
        conversation_id=found["conversation_id"],
        seq=found["seq"],
        channel=found["channel"],
        input_text=found["input_text"],
        state=TurnState(found["state"]),
        agent=Agent(found["agent"]) if found["agent"] else None,
        planned=found["planned"],
        content=found["content"],
        cuts=tuple(cast("list[int]", found["cuts"])),
        closing=found["closing"],
        source=found["source"],
        dimension=found["dimension"],
        reason=found["reason"],
        created=found["created"],
        created_at=found["created_at"],
        head_at=found["head_at"],
        visible_at=found["visible_at"],
        done_at=found["done_at"],
        deadline_at=found["deadline_at"],
        epoch=found["epoch"],
        answered_in=TurnId(found["answered_in"]) if found["answered_in"] else None,
        said_by=found["said_by"],
        cited=tuple(Cited.model_validate(one) for one in cast("list[object] | None", found["cited"]) or ()),
    )
