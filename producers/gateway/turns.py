"""Submitting a turn, and asking how it stands."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path
from pydantic import BaseModel, ConfigDict, JsonValue
from starlette.requests import Request
from starlette.responses import Response

from infra.postgres.statements import LedgerUnavailable
from infra.postgres.views import TurnView, Whereabouts, load_ledger, load_turn, load_whereabouts
from producers.gateway.auth import Authenticated, Principal, Submitter, check_conversation
from producers.gateway.briefs import CitedSource, Findings
from producers.gateway.documents import error_responses
from producers.gateway.parts import Parts, PartsOf
from producers.gateway.problems import unknown_turn
from producers.gateway.strict_json import StrictJsonRoute
from schemas.frames import PHASE_OF_STATE, Phase
from schemas.ids import CONVERSATION_PATTERN, TurnId
from schemas.keepers import Keeper
from schemas.names import TOPIC_RESULTS
from schemas.replays import ReplayMode
from schemas.turns import TurnRequest, TurnState

router = APIRouter(tags=["turns"], route_class=StrictJsonRoute)

ConversationPath = Annotated[
    str,
    Path(
        pattern=CONVERSATION_PATTERN,
        description="Chosen by the channel; a new one begins with its first turn.",
        examples=["demo-1"],
    ),
]
TurnPath = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="A turn's id.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Names the message: sent again under the same key it is the same turn.",
    ),
]


class TurnAccepted(BaseModel):
    """The turn will be answered, whatever breaks from now on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "turn_id": "3f9d3f0e-6b5e-5a60-9a4e-0c8d6f1f2a11",
                    "conversation_id": "demo-1",
                    "events_url": "https://example.com/v1/turns/3f9d3f0e-6b5e-5a60-9a4e-0c8d6f1f2a11/events",
                }
            ]
        }
    )

    turn_id: str
    conversation_id: str
    events_url: str
    """Where its frames can be watched."""


class Answer(BaseModel):
    """What the visitor was shown."""

    html: str
    """Sanitised HTML of a small allow-list."""


class Attempt(BaseModel):
    """One model call, for operators."""

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
    """Past turns left out of its prompt to keep the budget."""
    reserved_at: datetime
    ended_at: datetime | None


class Transition(BaseModel):
    """One step of the turn's life, for operators."""

    at: datetime
    from_state: str | None
    to_state: str
    epoch: int
    actor: str
    note: str | None


class Timings(BaseModel):
    """Seconds from the turn's recording, for operators."""

    head: float | None
    """Until it was queued on a lane."""
    visible: float | None
    """Until the first visible frame."""
    done: float | None


class Plan(BaseModel):
    """The models the turn was routed to, for operators."""

    primary: str
    fallback: str
    direct: bool
    """Whether the primary is skipped: nothing serves it, or the message's risk is not for it."""
    why: str
    """Why that agent was chosen."""


class Lease(BaseModel):
    """Who works on the turn, for operators."""

    owner: str
    until: datetime
    """By the database's clock; past it the owner counts as lost."""


class Hints(BaseModel):
    """How often its lane was told of the turn, for operators."""

    sent: int
    last_at: datetime | None


class Frames(BaseModel):
    """What was streamed, as far as the ledger has it, for operators."""

    content: int
    """How many frames with content there were, the terminal one not counted."""
    characters: int
    terminal: Phase | None
    """None while the turn is open."""


class DeadLetter(BaseModel):
    """A dead letter of the turn, for operators."""

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
    versions: dict[str, JsonValue]
    """Of policy, prompt and model when it was written."""
    created_at: datetime
    updated_at: datetime


class Replay(BaseModel):
    """What one replay job did with the turn's dead letter, for operators."""

    job_id: str
    mode: ReplayMode
    state: Literal["waiting", "running", "answered", "failed", "skipped"]
    note: str | None
    """Why it was skipped or did not end `answered`."""
    turn_id: str | None
    """The turn that answers it anew; null before it begins and where it was skipped."""
    started_at: datetime | None
    ended_at: datetime | None


class ReplayOf(BaseModel):
    """What the turn answers anew, for operators."""

    dead_letter_id: str
    turn_id: str | None
    """The dead letter's own turn; null once it is no longer kept."""
    mode: ReplayMode
    job_id: str | None
    """Null once the job is no longer kept."""


class KafkaPlace(BaseModel):
    """Where the event is that the turn came from, for operators."""

    topic: str
    partition: int
    offset: int


class KeptBy(BaseModel):
    """Who answers the turn's conversation now, for operators."""

    keeper: Keeper
    operator: str | None
    """The person; null while agents answer."""
    reason: str | None
    since: datetime | None


class Result(BaseModel):
    """Whether the turn's result has reached Kafka, for operators."""

    topic: str
    state: Literal["waiting", "published"]


class TurnDetails(BaseModel):
    """How a turn stands. What follows `sources` is for operators only."""

    turn_id: str
    conversation_id: str
    seq: int | None
    """Position in the conversation, from 1; None until the turn is recorded."""
    channel: str | None
    state: TurnState
    agent: str | None
    source: str
    """Which model call the answer came from: `primary`, `fallback`, `offline`, `none`; or `human`, who wrote it."""
    reason: str | None
    """Why the turn did not end `answered`; `coalesced` where its answer is another turn's, `taken_over` where a person
    has the conversation."""
    answer: Answer | None
    """What was shown, once the turn has ended."""
    created_at: datetime | None
    done_at: datetime | None
    answered_in: str | None = None
    """The earlier turn whose answer is also this one's."""
    said_by: str | None = None
    """The person who wrote it to the visitor, unasked."""
    sources: list[CitedSource] = []
    """What the answer cites of the knowledge base."""
    attempts: list[Attempt] | None = None
    events: list[Transition] | None = None
    timings: Timings | None = None
    deadline_at: datetime | None = None
    as_of: datetime | None = None
    """The database's clock when this was read."""
    text: str | None = None
    """What the visitor wrote."""
    epoch: int | None = None
    plan: Plan | None = None
    findings: Findings | None = None
    """What the orchestrator found out; null before it has."""
    behind: str | None = None
    """The open turn of the conversation that has to end first."""
    lease: Lease | None = None
    hints: Hints | None = None
    frames: Frames | None = None
    dead_letters: list[DeadLetter] | None = None
    replays: list[Replay] | None = None
    replay_of: ReplayOf | None = None
    """Null for a turn that a visitor began."""
    kafka: KafkaPlace | None = None
    result: Result | None = None
    """None until the turn has ended."""
    trace_id: str | None = None
    kept_by: KeptBy | None = None


@router.post(
    "/v1/conversations/{conversation_id}/turns",
    operation_id="submitTurn",
    summary="Submit a message",
    status_code=202,
    responses=error_responses(400, 401, 403, 408, 409, 413, 422, 429, 503),
)
async def submit_turn(
    conversation_id: ConversationPath,
    body: TurnRequest,
    request: Request,
    response: Response,
    principal: Submitter,
    parts: PartsOf,
    idempotency_key: IdempotencyKey = None,
) -> TurnAccepted:
    """Accept one message. 202 means that it is on the event log and will be answered."""
    check_conversation(principal, conversation_id)
    accepted = await parts.admission.submit(
        principal.tenant,
        conversation_id,
        body,
        idempotency_key=principal.key_for(idempotency_key) if idempotency_key else None,
        traceparent=request.headers.get("traceparent"),
        visitor=principal.visitor,
    )
    events_url = f"{base_url(parts, request)}/v1/turns/{accepted.turn_id}/events"
    response.headers["Location"] = events_url.removesuffix("/events")
    return TurnAccepted(turn_id=accepted.turn_id, conversation_id=conversation_id, events_url=events_url)


@router.get(
    "/v1/turns/{turn_id}",
    operation_id="getTurn",
    summary="Ask how a turn stands",
    response_model_exclude_unset=True,
    responses=error_responses(401, 403, 404, 422, 503),
)
async def get_turn(turn_id: TurnPath, principal: Authenticated, parts: PartsOf) -> TurnDetails:
    """Return state, agent and answer; with an operator's key its whole story."""
    view = await _find(parts, principal, TurnId(turn_id))
    if not isinstance(view, TurnView):
        return view
    details = details_of(view)
    return await _with_ledger(parts, view, details) if principal.operator else details


def base_url(parts: Parts, request: Request) -> str:
    """Return where this gateway is reached from outside, without a slash at its end."""
    return (parts.public_url or str(request.base_url)).rstrip("/")


def details_of(view: TurnView) -> TurnDetails:
    """Return what anyone who may see the turn sees of it."""
    return TurnDetails(
        turn_id=view.turn_id,
        conversation_id=view.conversation_id,
        seq=view.seq,
        channel=view.channel,
        state=view.state,
        agent=view.agent,
        source=view.source,
        reason=view.reason,
        answer=Answer(html=view.html) if view.done else None,
        created_at=view.created_at,
        done_at=view.done_at,
        answered_in=view.answered_in,
        said_by=view.said_by,
        sources=[CitedSource.model_validate(one, from_attributes=True) for one in view.cited],
    )


async def _find(parts: Parts, principal: Principal, turn_id: TurnId) -> TurnView | TurnDetails:
    known = parts.recent.find(turn_id)
    try:
        view = await load_turn(parts.engine, turn_id)
    except LedgerUnavailable:
        if known is None:
            raise
        view = None
    if view is not None and principal.may_touch(view.tenant_id, view.conversation_id):
        return view
    if view is None and known is not None and principal.may_touch(known.tenant, known.conversation_id):
        # Accepted this moment and not recorded yet: it is not unknown.
        return TurnDetails(
            turn_id=turn_id,
            conversation_id=known.conversation_id,
            seq=None,
            channel=None,
            state=TurnState.RECEIVED,
            agent=None,
            source="none",
            reason=None,
            answer=None,
            created_at=None,
            done_at=None,
            answered_in=None,
            sources=[],
        )
    raise unknown_turn()


async def _with_ledger(parts: Parts, view: TurnView, details: TurnDetails) -> TurnDetails:
    ledger = await load_ledger(parts.engine, view.turn_id)
    details = details.model_copy(
        update={
            "attempts": [Attempt.model_validate(found, from_attributes=True) for found in ledger.attempts],
            "events": [Transition.model_validate(found, from_attributes=True) for found in ledger.events],
            "timings": Timings(
                head=_since(view, view.head_at),
                visible=_since(view, view.visible_at),
                done=_since(view, view.done_at),
            ),
            "deadline_at": view.deadline_at,
            "text": view.input_text,
            "epoch": view.epoch,
            "frames": Frames(
                content=len(view.cuts), characters=len(view.content), terminal=PHASE_OF_STATE.get(view.state)
            ),
        }
    )
    where = await load_whereabouts(parts.engine, view.turn_id)
    return details if where is None else details.model_copy(update=_places(view, where))


def _places(view: TurnView, where: Whereabouts) -> dict[str, object]:
    """Return where the turn, its event and its result are, by field of `TurnDetails`."""
    result = Result(topic=TOPIC_RESULTS, state="waiting" if where.result_waits else "published")
    return {
        "as_of": where.as_of,
        "plan": _plan(where),
        "findings": Findings.of(where.brief, where.policy) if where.brief is not None else None,
        "behind": where.behind if not view.done else None,
        "lease": Lease(owner=where.owner, until=where.lease_until) if where.owner and where.lease_until else None,
        "hints": Hints(sent=where.hints, last_at=where.hinted_at),
        "dead_letters": [DeadLetter.model_validate(found, from_attributes=True) for found in where.letters],
        "replays": [Replay.model_validate(found, from_attributes=True) for found in where.replays],
        "replay_of": _replay_of(where),
        "kafka": _event(where),
        "result": result if view.done else None,
        "trace_id": where.traceparent.split("-")[1] if where.traceparent else None,
        "kept_by": KeptBy(
            keeper=where.keeper,
            operator=where.keeper_name,
            reason=where.keeper_reason or None,
            since=where.keeper_since,
        ),
    }


def _event(where: Whereabouts) -> KafkaPlace | None:
    """Return where the turn's event is; what a person wrote never was one."""
    if not where.kafka_topic:
        return None
    return KafkaPlace(topic=where.kafka_topic, partition=where.kafka_partition, offset=where.kafka_offset)


def _replay_of(where: Whereabouts) -> ReplayOf | None:
    if where.replay_of is None or where.replay_mode is None:
        return None
    return ReplayOf(
        dead_letter_id=where.replay_of, turn_id=where.replayed_turn, mode=where.replay_mode, job_id=where.replay_job
    )


def _plan(where: Whereabouts) -> Plan | None:
    if where.primary is None or where.fallback is None:
        return None
    return Plan(primary=where.primary, fallback=where.fallback, direct=where.direct, why=where.why or "")


def _since(view: TurnView, moment: datetime | None) -> float | None:
    return round((moment - view.created_at).total_seconds(), 6) if moment is not None else None
