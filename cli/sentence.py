"""The one sentence that sums a turn up."""

from typing import Final

from cli.story import FAILURES, Attempt, Story, Transition
from schemas.briefs import Risk
from schemas.dead_letters import DeadLetterReason
from schemas.keepers import TAKEN_OVER
from schemas.turns import TERMINAL, TurnState

_NAMES: Final = {
    "discovery-slm": "the fine-tuned model",
    "frontier": "the frontier",
    "frontier-lite": "the smaller frontier model",
}
"""What people call the models of the shipped policy; others are told by their names."""

RISKS: Final = {
    Risk.LEGAL: "questions of law",
    Risk.PRICE_COMMITMENT: "what would commit to a price",
    Risk.INVOICE: "what would state an invoice's numbers",
}
"""What the fine-tuned model is kept from."""

_UNSEEN: Final = frozenset({"backend_failed", "incomplete", "timeout", "malformed"})
"""Failures that may come before or after the first word, so that it must be said which."""

_RESCUES: Final = {
    DeadLetterReason.QUEUE_DEADLINE: "no worker took it from its lane in time",
    DeadLetterReason.WORKER_LOST: "its worker was lost before anything was visible",
    DeadLetterReason.POISON: "its second worker was lost as well, as if the turn itself killed them",
    DeadLetterReason.BUDGET: "more turns had to be rescued than the policy pays for",
}
"""Why it left its lane, by the note of that step."""

_ENDED: Final = {
    DeadLetterReason.LOAD_FAILURE: "its model could not be loaded",
    DeadLetterReason.MALFORMED: "what a model wrote is no answer",
    DeadLetterReason.BACKEND_FAILED: "the one model that could still be asked failed",
    DeadLetterReason.BACKEND_FAILED_TWICE: "both models failed",
    DeadLetterReason.DEPENDENCY_DOWN: "no model it could have been answered by could be reached",
}
"""Why nobody answered, where its calls do not say it already."""

_NOBODY: Final = {
    TurnState.BOUNDED: "the visitor got the bounded reply",
    TurnState.PARKED: "its dead letter was parked for an operator, and the visitor got the bounded reply",
    TurnState.HANDED_OFF: "it was handed to a person, as the visitor was told",
}
"""What became of a turn that no model answered."""

_OFFLINE: Final = "the visitor got what can be said without a model"
"""The same where the policy says so."""

_LATE_SECONDS: Final = 5.0
"""How long after a clock has run out upkeep should have acted."""


def sentence(story: Story) -> str:
    """Say in one sentence what happened to the turn, or what it waits for; in a second one what is overdue."""
    told = _sentence(story)
    if story.replay_of is not None:
        of = story.replay_of
        what = f"turn {of.turn_id}" if of.turn_id else f"dead letter {of.dead_letter_id}, whose turn is no longer kept"
        told = f"Replay ({of.mode}) of {what}: {told[:1].lower()}{told[1:]}"
    return told


def _sentence(story: Story) -> str:
    match story.state:
        case TurnState.ANSWERED if story.said_by is not None:
            return f"Written by {story.said_by}, a person who had the conversation; {_waited(story)}."
        case TurnState.HANDED_OFF if story.reason == TAKEN_OVER:
            return f"{_capitalised(_taken_over(story))}{_delivered(story)}."
        case TurnState.ANSWERED:
            return f"Answered by {_answerer(story)}{_after(story)}; {_waited(story)}."
        case TurnState.TRUNCATED:
            why = f"because {_break(story)}{_earlier(story)}"
            return f"Broke off after {_characters(story)} {why}; {_waited(story)}{_delivered(story)}."
        case state if state in _NOBODY:
            told = _OFFLINE if story.source == "offline" else _NOBODY[state]
            shown = "no visitor was shown anything" if _hidden(story) else f"{told}{_when_done(story)}"
            return f"Not answered: {_joined(_all_causes(story))}; {shown}{_delivered(story)}."
        case TurnState.REJECTED:
            note = story.events[-1].note if story.events else None
            seen = f" ({note})" if note and note != story.reason else ""
            told = "no model was asked, and the visitor was told how to write it otherwise"
            return f"Refused as {story.reason}{seen}: {told}{_delivered(story)}."
        case state if state in TERMINAL:
            return f"Ended {state.value.replace('_', ' ')}{f': {story.reason}' if story.reason else ''}."
        case _:
            return f"{_capitalised(_standing(story))}.{_overdue(story)}"


def _taken_over(story: Story) -> str:
    """What a takeover left of the turn: where it was taken back from, or that no agent ever had it."""
    models = [named(attempt.model) for attempt in story.attempts or ()]
    causes = _causes(story)
    before = f"{_joined(causes)}; then " if causes else ""
    if models:
        return f"{before}a person took the conversation over while {models[-1]} was asked; nothing of it was shown"
    return f"{before}left to the person who had taken the conversation over; no model was asked"


def not_asked(story: Story) -> str:
    """Return why the plan itself goes past the primary."""
    risk = story.findings.risk if story.findings else Risk.NONE
    model = named(story.plan.primary) if story.plan else "the primary"
    return f"{model} may not answer {RISKS[risk]}" if risk in RISKS else f"nothing serves {model}"


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
        return f" at once, as {not_asked(story)}"
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
    return f"{named(attempt.model)} {FAILURES[error]}{' before its first word' if error in _UNSEEN else ''}"


def _seen(attempt: Attempt, story: Story) -> bool:
    """Whether this call's text was visible when it failed."""
    return story.state is TurnState.TRUNCATED and attempt is _shown_by(story)


def _break(story: Story) -> str:
    attempt = _shown_by(story)
    if attempt is not None and attempt.failed:
        return f"{named(attempt.model)} {FAILURES[attempt.error or '']}"
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
    return causes or [_reason(story)]


def _reason(story: Story) -> str:
    known = story.reason in list(DeadLetterReason)
    told = {**_RESCUES, **_ENDED}.get(DeadLetterReason(story.reason)) if known else None
    return told or story.reason or "the ledger does not say why"


def _last_open_state(story: Story) -> str:
    return (story.events[-1].from_state if story.events else None) or "open"


def _waited(story: Story) -> str:
    if _hidden(story):
        return "no visitor was shown it"
    if story.timings.visible is not None:
        return f"the visitor waited {seconds(story.timings.visible)} for the first word"
    if story.timings.done is not None:
        return f"the visitor saw nothing of it until its end, {seconds(story.timings.done)} after it was recorded"
    return "when the visitor saw it is not known"


def _when_done(story: Story) -> str:
    return f" after {seconds(story.timings.done)}" if story.timings.done is not None else ""


def _hidden(story: Story) -> bool:
    """Whether it is a replay that no visitor is shown."""
    return story.replay_of is not None and story.replay_of.mode != "deliver"


def _delivered(story: Story) -> str:
    """What a replay made of it for its visitor."""
    delivered = [replay for replay in story.replays if replay.mode == "deliver" and replay.turn_id is not None]
    if any(replay.state == "answered" for replay in delivered):
        return "; a replay answered it later"
    return "; a replay is under way" if any(replay.state == "running" for replay in delivered) else ""


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
        case TurnState.RECEIVED if story.said_by is not None:
            return f"Written by {story.said_by}, and waits{since} for an orchestrator to show it"
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
