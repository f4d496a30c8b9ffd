"""A turn's story as `GET /v1/turns/{id}` tells it to operators, and the one sentence that sums it up."""

from datetime import datetime
from typing import Final

from pydantic import BaseModel

from schemas.agents import Lane
from schemas.dead_letters import DeadLetterReason
from schemas.turns import TERMINAL, TurnState

_NAMES: Final = {
    "discovery-slm": "the fine-tuned model",
    "frontier": "the frontier",
    "frontier-lite": "the smaller frontier model",
}
"""What people call the models of the shipped policy; others are told by their names."""

_FAILURES: Final = {
    "overloaded": "had no room",
    "invalid_request": "refused the request itself",
    "backend_failed": "broke",
    "incomplete": "closed the connection",
    "unavailable": "could not be reached",
    "timeout": "ran out of time",
    "malformed": "wrote something that is no answer",
}
_SKIPPED: Final = {
    "breaker_open": "was skipped by its open breaker",
}
"""Why a claim went past the primary, by the note of its step."""

_UNSEEN: Final = frozenset({"backend_failed", "incomplete", "timeout", "malformed"})
"""Failures that may come before or after the first word, so that it must be said which."""

_RESCUES: Final = {
    DeadLetterReason.QUEUE_DEADLINE: "no worker took it from its lane in time",
    DeadLetterReason.WORKER_LOST: "its worker was lost before anything was visible",
}

_LATE_SECONDS: Final = 5.0
"""How long after a clock has run out upkeep should have acted."""


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
        return self.state == "failed" and self.error in _FAILURES


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
    created_at: datetime


class KafkaPlace(BaseModel):
    """Where its event is."""

    topic: str
    partition: int
    offset: int


class Result(BaseModel):
    """Whether its result has reached Kafka."""

    topic: str
    state: str


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
    behind: str | None = None
    lease: Lease | None = None
    hints: Hints | None = None
    frames: Frames | None = None
    dead_letters: list[DeadLetter] = []
    kafka: KafkaPlace | None = None
    result: Result | None = None
    trace_id: str | None = None

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


def sentence(story: Story) -> str:
    """Say in one sentence what happened to the turn, or what it waits for."""
    match story.state:
        case TurnState.ANSWERED:
            return f"Answered by {_answerer(story)}{_after(story)}; {_waited(story)}."
        case TurnState.TRUNCATED:
            return f"Broke off after {_characters(story)} because {_break(story)}{_earlier(story)}; {_waited(story)}."
        case TurnState.BOUNDED:
            return f"Not answered: {_joined(_all_causes(story))}; the visitor got the bounded reply{_when_done(story)}."
        case state if state in TERMINAL:
            return f"Ended {state.value.replace('_', ' ')}{f': {story.reason}' if story.reason else ''}."
        case _:
            return f"{_capitalised(_standing(story))}.{_overdue(story)}"


def seconds(value: float) -> str:
    """Return a duration as people say it."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def named(model: str) -> str:
    """Return what people call a model."""
    return _NAMES.get(model, f"the model '{model}'")


def _answerer(story: Story) -> str:
    if story.source == "offline":
        return "the offline responder, as no model server is configured"
    attempt = _shown_by(story)
    return named(attempt.model) if attempt else "a model the ledger does not name"


def _shown_by(story: Story) -> Attempt | None:
    """The call whose text the visitor has: always the last one."""
    return story.attempts[-1] if story.attempts else None


def _after(story: Story) -> str:
    causes = _causes(story)
    if causes:
        return f" after {_joined(causes)}"
    attempt = _shown_by(story)
    if attempt is None or attempt.ordinal == 1:
        return ""
    if story.plan is not None and story.plan.direct:
        return f" at once, as nothing serves {named(story.plan.primary)}"
    if story.plan is not None and story.skipped is not None:
        return f" at once, as {named(story.plan.primary)} {story.skipped}"
    return " at once, as the answer before this one broke off"


def _causes(story: Story) -> list[str]:
    """What went wrong before anything was visible, in its order."""
    found = [(event.at, _rescued(story, event)) for event in story.events if event.to_state == TurnState.RESCUE]
    found += [
        (a.ended_at or a.reserved_at, _failure(a)) for a in story.attempts or () if a.failed and not _seen(a, story)
    ]
    return [cause for _, cause in sorted(found)]


def _rescued(story: Story, event: Transition) -> str:
    # A stream that was sealed with nothing in it leaves its reason in the dead letter alone.
    reason = event.note or next((letter.reason for letter in reversed(story.dead_letters)), "")
    known = reason in list(DeadLetterReason)
    return _RESCUES.get(DeadLetterReason(reason), f"it was rescued ({reason})") if known else "it was rescued"


def _failure(attempt: Attempt) -> str:
    error = attempt.error or ""
    return f"{named(attempt.model)} {_FAILURES[error]}{' before its first word' if error in _UNSEEN else ''}"


def _seen(attempt: Attempt, story: Story) -> bool:
    """Whether this call's text was visible when it failed."""
    return story.state is TurnState.TRUNCATED and attempt is _shown_by(story)


def _break(story: Story) -> str:
    attempt = _shown_by(story)
    if attempt is not None and attempt.failed:
        return f"{named(attempt.model)} {_FAILURES[attempt.error or '']}"
    return "its worker was lost while it was writing" if story.reason == "worker_lost" else f"of {story.reason}"


def _earlier(story: Story) -> str:
    causes = _causes(story)
    return f" (before that, {_joined(causes)})" if causes else ""


def _all_causes(story: Story) -> list[str]:
    """Why nobody answered: what failed, and what ended the waiting."""
    causes = _causes(story)
    if story.plan is not None and story.skipped is not None:
        causes.insert(0, f"{named(story.plan.primary)} {story.skipped}")
    if story.reason == DeadLetterReason.TURN_DEADLINE:
        causes.append(f"its deadline passed while it was {_last_open_state(story)}")
    if story.reason == DeadLetterReason.SEAL_UNKNOWN:
        causes.append("its worker was lost and Redis had forgotten what it may have shown")
    if story.reason == DeadLetterReason.QUEUE_DEADLINE:
        causes.append("no worker took the rescue before the deadline")
    if story.reason == DeadLetterReason.WORKER_LOST and any(a.ordinal == 2 for a in story.attempts or ()):
        causes.append("its one fallback was used up")
    return causes or [story.reason or "the ledger does not say why"]


def _last_open_state(story: Story) -> str:
    return (story.events[-1].from_state if story.events else None) or "open"


def _waited(story: Story) -> str:
    if story.timings.visible is not None:
        return f"the visitor waited {seconds(story.timings.visible)} for the first word"
    if story.timings.done is not None:
        return f"the visitor saw nothing of it until its end, {seconds(story.timings.done)} after it was recorded"
    return "when the visitor saw it is not known"


def _when_done(story: Story) -> str:
    return f" after {seconds(story.timings.done)}" if story.timings.done is not None else ""


def _characters(story: Story, adjective: str = "visible ") -> str:
    count = story.frames.characters if story.frames else 0
    return f"{count} {adjective}character{'' if count == 1 else 's'}"


def _standing(story: Story) -> str:
    """Where an open turn stands, and for how long."""
    since = _since_last_step(story)
    model = named(story.attempts[-1].model) if story.attempts else "a model"
    causes = _causes(story)
    told = f"{_joined(causes)}; " if causes else ""
    match story.state:
        case TurnState.RECEIVED if not story.recorded:
            return "Accepted a moment ago, and no orchestrator has recorded it yet"
        case TurnState.RECEIVED if story.behind:
            return f"Waits{since} for an earlier turn of its conversation to end: {story.behind}"
        case TurnState.RECEIVED:
            return f"Recorded, and waits{since} for an orchestrator"
        case TurnState.PREPARING:
            return f"An orchestrator has been choosing its agent{since}"
        case TurnState.QUEUED:
            return f"Waits{since} for a worker of the lane {story.lane}"
        case TurnState.RESCUE:
            return f"{told}it waits{since} for a worker of the lane {story.lane}"
        case TurnState.RUNNING | TurnState.FALLBACK:
            return f"{told}{model} has been asked{since}, and nothing is visible yet"
        case TurnState.STREAMING:
            return f"{model} is answering; at the last checkpoint it had written {_characters(story, '')}"
        case _:
            return f"Its worker was lost in mid-stream, and upkeep has been sealing what was shown{since}"


def _since_last_step(story: Story) -> str:
    if story.as_of is None or not story.events:
        return ""
    return f" for {seconds(max(0.0, (story.as_of - story.events[-1].at).total_seconds()))}"


def _overdue(story: Story) -> str:
    """What should have been done about it by now."""
    clocks = (("lease", story.lease.until if story.lease else None), ("deadline", story.deadline_at))
    for name, until in clocks:
        late = (story.as_of - until).total_seconds() if story.as_of and until else 0.0
        if late > _LATE_SECONDS:
            return f" Its {name} ended {seconds(late)} ago, so upkeep should have acted: see whether it runs."
    return ""


def _joined(causes: list[str]) -> str:
    return " and ".join(causes)


def _capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]
