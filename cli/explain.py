"""`fairlead explain`: the whole story of a turn on one screen."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cli.chat import styles_wanted
from cli.failure import CommandFailed
from cli.http import HttpFailed, request
from cli.sentence import not_asked, seconds, sentence
from cli.state import local_endpoints
from cli.story import Attempt, DeadLetter, Replay, Story, Transition
from cli.tables import aligned, clock
from cli.terminal import BOLD, RESET, TerminalText, dim, harmless
from schemas.briefs import Risk

_TURN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_TEXTS: Final = frozenset({"text", "answer"})
"""Fields that hold what people and models wrote."""


def explain(turn_id: str, *, state: Path, url: str | None, key: str | None, reveal: bool, as_json: bool) -> int:
    """Ask for a turn's story, tell it, and return the exit status.

    Raises:
        CommandFailed: there is no such turn, the key does not show it, or nothing answers.
    """
    gateway, key = _where(state, url, key)
    story = read_story(gateway, turn_id, key=key)
    if as_json:
        sys.stdout.write(to_json(story, reveal=reveal))
    else:
        sys.stdout.write(told(story, reveal=reveal, styled=styles_wanted()))
    return 0


def read_story(gateway: str, turn_id: str, *, key: str) -> Story:
    """Ask the gateway for everything about a turn.

    Raises:
        CommandFailed: there is no such turn, the key does not show it, or nothing answers.
    """
    wanted = turn_id.strip().lower()
    if not _TURN_ID.fullmatch(wanted):
        raise CommandFailed(
            f"There is no turn '{harmless(turn_id)}': a turn's id looks like 3f9d3f0e-6b5e-5a60-9a4e-0c8d6f1f2a11."
        )
    try:
        story = Story.model_validate_json(request(f"{gateway.rstrip('/')}/v1/turns/{wanted}", key=key))
    except HttpFailed as error:
        raise CommandFailed(_refusal(error, gateway, wanted)) from error
    except ValueError as error:
        raise CommandFailed(f"What answers at {gateway} is not a gateway of this version.") from error
    if story.recorded and story.attempts is None:
        raise CommandFailed("This key is not an operator's: create one with `fairlead keys create --scope operator`.")
    return story


def to_json(story: Story, *, reveal: bool) -> str:
    """Return the story as one JSON object, without what people and models wrote unless `reveal`."""
    facts = story.model_dump(mode="json", exclude=None if reveal else set(_TEXTS))
    return json.dumps({"sentence": sentence(story), **facts}, indent=2) + "\n"


def told(story: Story, *, reveal: bool, styled: bool) -> str:
    """Return the story as a screen of text."""
    summed_up = harmless(sentence(story))
    parts = [f"{BOLD}{summed_up}{RESET}\n" if styled else f"{summed_up}\n", _header(story, styled=styled)]
    if story.recorded:
        parts += [
            _table("timeline, ms since it was recorded", [_step(story, e) for e in story.events], styled=styled),
            _table("model calls", [_call(story, a) for a in story.attempts or ()], styled=styled),
            _frames(story, styled=styled),
            _table("dead letters", [_letter(story, found) for found in story.dead_letters], styled=styled),
            _table("replays of its dead letter", [_replay(found) for found in story.replays], styled=styled),
        ]
    if reveal:
        parts += _revealed(story, styled=styled)
    return "\n".join(part for part in parts if part)


def _where(state: Path, url: str | None, key: str | None) -> tuple[str, str]:
    if url is None:
        found = local_endpoints(state)
        return found.gateway, key or found.operator_key
    if key is None:
        raise CommandFailed("--url needs an operator's key: give --key, or set FAIRLEAD_OPERATOR_KEY.", status=2)
    return url, key


def _refusal(error: HttpFailed, gateway: str, turn_id: str) -> str:
    match error.status:
        case 404:
            return f"There is no turn {turn_id} at {gateway}, or it is not of the tenant whose key asks."
        case 401:
            return f"{gateway} does not know the key: it is wrong, expired or revoked."
        case None:
            return f"Nothing answers at {urlsplit(gateway).netloc or gateway}: see `fairlead doctor`."
        case _:
            return str(error)


def _header(story: Story, *, styled: bool) -> str:
    facts = [
        ("turn", story.turn_id),
        ("conversation", f"{story.conversation_id}{f', turn {story.seq} of it' if story.seq else ''}"),
        ("channel", story.channel),
        ("agent", f"{story.agent}{f' ({story.plan.why})' if story.plan else ''}" if story.agent else None),
        ("routed by", _router(story)),
        ("found", _found(story)),
        ("knowledge", _knowledge(story)),
        ("replay of", _replay_of(story)),
        ("models", _models(story)),
        ("written by", story.said_by),
        ("state", f"{story.state.value}{f' ({story.reason})' if story.reason else ''}"),
        ("recorded", clock(story.created_at)),
        ("deadline", _deadline(story)),
        ("owner", _owner(story)),
        ("hints", _hints(story)),
        ("event", _event(story)),
        ("result", _result(story)),
        ("keeper", _keeper(story)),
        ("trace", story.trace_id),
    ]
    rows = [(name, value) for name, value in facts if value]
    return "".join(f"{dim(name.ljust(12), styled=styled)}  {harmless(value)}\n" for name, value in rows)


def _router(story: Story) -> str | None:
    found = story.findings
    if found is None:
        return None
    return f"{found.router}, {found.confidence:.2f} sure{f', policy {found.policy}' if found.policy else ''}"


def _found(story: Story) -> str | None:
    found = story.findings
    if found is None:
        return None
    facts = [found.language, found.phase, found.intent, *(f"signal {kind}" for kind in found.signals)]
    facts += [f"repeats turn {found.repeats}"] if found.repeats is not None else []
    facts += [f"risk {found.risk}"] if found.risk is not Risk.NONE else []
    return ", ".join(fact.replace("_", " ") for fact in facts if fact)


def _knowledge(story: Story) -> str | None:
    read = story.findings.retrieved if story.findings else None
    if read is None or read.state == "off":
        return None
    if read.state != "found":
        return {"nothing": "nothing was found", "late": "was late", "failed": "could not be read"}.get(read.state)
    answerable = "holds an answer" if read.answerable else "holds no answer"
    snapshot = f", snapshot {read.snapshot}" if read.snapshot else ""
    return f"{answerable} ({read.score:.2f}), {len(read.passages)} passages{snapshot}"


def _models(story: Story) -> str | None:
    if story.plan is None:
        return None
    skipped = f" (skipped: {not_asked(story)})" if story.plan.direct else ""
    if story.skipped is not None and not story.plan.direct:
        skipped = f" (skipped: it {story.skipped})"
    return f"{story.plan.primary}{skipped}, then {story.plan.fallback}"


def _deadline(story: Story) -> str | None:
    if story.deadline_at is None or story.created_at is None:
        return None
    span = (story.deadline_at - story.created_at).total_seconds()
    left = "" if story.done or story.as_of is None else _left(story.as_of, story.deadline_at)
    return f"{clock(story.deadline_at)}, {seconds(span)} after it was recorded{left}"


def _left(now: datetime, until: datetime) -> str:
    left = (until - now).total_seconds()
    return f", in {seconds(left)}" if left >= 0 else f", passed {seconds(-left)} ago"


def _owner(story: Story) -> str | None:
    if story.lease is None:
        return None
    left = _left(story.as_of, story.lease.until) if story.as_of else ""
    return f"{story.lease.owner}, epoch {story.epoch}, lease until {clock(story.lease.until)}{left}"


def _hints(story: Story) -> str | None:
    if story.hints is None or not story.hints.sent:
        return None
    return f"{story.hints.sent} sent, the last at {clock(story.hints.last_at)}"


def _event(story: Story) -> str | None:
    place = story.kafka
    return f"{place.topic}, partition {place.partition}, offset {place.offset}" if place else None


def _result(story: Story) -> str | None:
    if story.result is None:
        return None
    if story.result.state == "published":
        return f"published to {story.result.topic}"
    return f"waits in the outbox for {story.result.topic}: see Kafka and upkeep"


def _keeper(story: Story) -> str | None:
    kept = story.kept_by
    if kept is None or kept.since is None:
        return None
    if kept.keeper == "agent":
        return f"agents again, since a person gave the conversation back at {clock(kept.since)}"
    why = f": {kept.reason}" if kept.reason else ""
    return f"{kept.operator or 'a person'}, who took the conversation over at {clock(kept.since)}{why}"


def _frames(story: Story, *, styled: bool) -> str:
    if story.frames is None:
        return ""
    frames, visible = story.frames, story.timings.visible
    line = f"{frames.content} with content, {frames.characters} characters"
    if visible is not None:
        line += f", the first visible after {_ms(visible)} ms"
    elif frames.content and story.done:
        line += ", none visible while it was written"
    line += f"; ended {frames.terminal}" if frames.terminal else "; not ended, this is the last checkpoint"
    return f"{dim('frames', styled=styled)}\n  {harmless(line)}\n"


def _step(story: Story, event: Transition) -> Sequence[str]:
    return (
        _offset(story, event.at).rjust(7),
        f"{event.from_state or '—'} → {event.to_state}",
        f"epoch {event.epoch}",
        event.actor,
        event.note or "",
    )


def _call(story: Story, attempt: Attempt) -> Sequence[str]:
    began, ended = attempt.reserved_at, attempt.ended_at
    took = f"{_offset(story, began)}–{_offset(story, ended)} ms ({_took(began, ended)})" if ended else None
    tokens = (attempt.input_tokens, attempt.output_tokens)
    return (
        str(attempt.ordinal),
        attempt.model,
        attempt.kind,
        took or f"since {_offset(story, began)} ms",
        attempt.state,
        attempt.error or "",
        f"{tokens[0]} tokens in, {tokens[1]} out" if None not in tokens else "tokens not told",
        f"confidence {attempt.confidence:.2f}" if attempt.confidence is not None else "",
        f"{attempt.turns_cut} past turns cut" if attempt.turns_cut else "",
    )


def _took(began: datetime, ended: datetime) -> str:
    return seconds((ended - began).total_seconds())


def _letter(story: Story, letter: DeadLetter) -> Sequence[str]:
    return (
        _offset(story, letter.created_at).rjust(7),
        letter.reason,
        f"while {letter.stage}",
        letter.state,
        f"{letter.times} times" if letter.times > 1 else "",
        f"{letter.replays} replays in vain" if letter.replays else "",
        letter.error or "",
        ", ".join(f"{name} {value}" for name, value in letter.versions.items()),
        letter.dead_letter_id,
    )


def _replay(replay: Replay) -> Sequence[str]:
    took = _took(replay.started_at, replay.ended_at) if replay.started_at and replay.ended_at else ""
    return (
        clock(replay.started_at) or "not begun",
        replay.mode,
        replay.state,
        replay.note or "",
        took if replay.turn_id else "",
        f"turn {replay.turn_id}" if replay.turn_id else "",
        f"job {replay.job_id}",
    )


def _replay_of(story: Story) -> str | None:
    of = story.replay_of
    if of is None:
        return None
    job = f", job {of.job_id}" if of.job_id else ""
    turn = f", turn {of.turn_id}" if of.turn_id else ""
    return f"dead letter {of.dead_letter_id}{turn} ({of.mode}{job})"


def _revealed(story: Story, *, styled: bool) -> Iterable[str]:
    if story.text is not None:
        yield f"{dim('the visitor wrote', styled=styled)}\n{harmless(story.text)}\n"
    if story.answer is not None:
        text = TerminalText(styled=styled)
        yield f"{dim('the visitor was shown', styled=styled)}\n{text.show(story.answer.html)}{text.end()}\n"


def _table(title: str, rows: Sequence[Sequence[str]], *, styled: bool) -> str:
    return f"{dim(title, styled=styled)}\n{aligned(rows)}" if rows else ""


def _offset(story: Story, moment: datetime) -> str:
    return _ms((moment - story.created_at).total_seconds()) if story.created_at else "?"


def _ms(value: float) -> str:
    return f"{value * 1000:.0f}"
