"""A turn's story as `GET /v1/turns/{id}` tells it to operators."""

from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel

from schemas.agents import Lane
from schemas.briefs import Risk
from schemas.keepers import Keeper
from schemas.replays import ReplayMode
from schemas.turns import TERMINAL, TurnState

FAILURES: Final = {
    "overloaded": "had no room",
    "invalid_request": "refused the request itself",
    "backend_failed": "broke",
    "incomplete": "closed the connection",
    "unavailable": "could not be reached",
    "timeout": "ran out of time",
    "malformed": "wrote something that is no answer",
    "load_failure": "could not be loaded",
}
"""What a failed call's model did, by its error."""

_SKIPPED: Final = {
    "breaker_open": "was skipped by its open breaker",
}
"""Why a claim went past the primary, by the note of its step."""


class Attempt(BaseModel):
    """One model call."""

    ordinal: int
    model: str
    rescue: bool = False
    state: str
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    confidence: float | None = None
    turns_cut: int = 0
    reserved_at: datetime
    ended_at: datetime | None = None

    @property
    def kind(self) -> str:
        """Which of a turn's calls it was."""
        return "rescue" if self.rescue else "primary" if self.ordinal == 1 else "fallback"

    @property
    def failed(self) -> bool:
        """Whether the model failed, and not who had asked it."""
        return self.state == "failed" and self.error in FAILURES


class Transition(BaseModel):
    """One step of the turn's life."""

    at: datetime
    from_state: str | None
    to_state: str
    epoch: int
    actor: str
    note: str | None = None


class Timings(BaseModel):
    """Seconds from recording."""

    head: float | None = None
    visible: float | None = None
    done: float | None = None


class Plan(BaseModel):
    """The models it was routed to."""

    primary: str
    fallback: str
    direct: bool = False
    why: str = ""


class Retrieval(BaseModel):
    """What the knowledge base had for it."""

    state: str = "off"
    answerable: bool = False
    score: float = 0.0
    snapshot: str | None = None
    passages: list[dict[str, Any]] = []


class Findings(BaseModel):
    """What the orchestrator found out about it."""

    router: str
    confidence: float = 0.0
    policy: int | None = None
    language: str = "en"
    phase: str = ""
    intent: str = ""
    signals: list[str] = []
    repeats: int | None = None
    risk: Risk = Risk.NONE
    retrieved: Retrieval = Retrieval()


class Lease(BaseModel):
    """Who works on it."""

    owner: str
    until: datetime


class Hints(BaseModel):
    """How often its lane was told of it."""

    sent: int
    last_at: datetime | None = None


class Frames(BaseModel):
    """What was streamed, as far as the ledger has it."""

    content: int
    characters: int
    terminal: str | None = None


class DeadLetter(BaseModel):
    """Why it left its lane."""

    dead_letter_id: str
    reason: str
    stage: str
    state: str
    error: str | None = None
    times: int = 1
    replays: int = 0
    versions: dict[str, Any] = {}
    created_at: datetime


class Replay(BaseModel):
    """What one job did with its dead letter."""

    job_id: str
    mode: ReplayMode
    state: str
    note: str | None = None
    turn_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class ReplayOf(BaseModel):
    """The dead letter it answers anew."""

    dead_letter_id: str
    turn_id: str | None = None
    mode: ReplayMode
    job_id: str | None = None


class KafkaPlace(BaseModel):
    """Where its event is."""

    topic: str
    partition: int
    offset: int


class Result(BaseModel):
    """Whether its result has reached Kafka."""

    topic: str
    state: str


class KeptBy(BaseModel):
    """Who answers its conversation now."""

    keeper: Keeper
    operator: str | None = None
    reason: str | None = None
    since: datetime | None = None


class Answer(BaseModel):
    """What was shown."""

    html: str


class Story(BaseModel):
    """Everything that is known of a turn. What the gateway tells only operators is empty for others."""

    turn_id: str
    conversation_id: str
    seq: int | None = None
    channel: str | None = None
    state: TurnState
    agent: str | None = None
    source: str = "none"
    reason: str | None = None
    answer: Answer | None = None
    created_at: datetime | None = None
    done_at: datetime | None = None
    attempts: list[Attempt] | None = None
    events: list[Transition] = []
    timings: Timings = Timings()
    deadline_at: datetime | None = None
    as_of: datetime | None = None
    text: str | None = None
    epoch: int | None = None
    plan: Plan | None = None
    findings: Findings | None = None
    behind: str | None = None
    lease: Lease | None = None
    hints: Hints | None = None
    frames: Frames | None = None
    dead_letters: list[DeadLetter] = []
    replays: list[Replay] = []
    replay_of: ReplayOf | None = None
    kafka: KafkaPlace | None = None
    result: Result | None = None
    trace_id: str | None = None
    said_by: str | None = None
    kept_by: KeptBy | None = None

    @property
    def recorded(self) -> bool:
        """Whether the ledger has it."""
        return self.seq is not None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL

    @property
    def skipped(self) -> str | None:
        """Why the primary was not asked, as the turn's claim says it."""
        claims = (event for event in self.events if event.from_state == TurnState.QUEUED)
        return next((_SKIPPED[event.note] for event in claims if event.note in _SKIPPED), None)

    @property
    def lane(self) -> str:
        """The lane it waits on, when it waits on one."""
        if self.state is TurnState.RESCUE:
            return Lane.FRONTIER_FALLBACK.value
        return f"agent.{self.agent}" if self.agent else "no agent"
