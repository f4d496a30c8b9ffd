"""Finds what must never be found, in the evidence of a fault run. Pure: it starts and reads nothing."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from schemas.turns import TERMINAL, TRANSITIONS, TurnState
from tests.chaos.evidence import Evidence, Step, Transcript, TurnRow


class Kind(StrEnum):
    """Columns of the table."""

    LOST = "lost"
    DUPLICATED = "duplicated answers"
    CALLS = "calls over the limit"
    ORDER = "order violations"
    FRAMES = "frames missing or repeated"
    LEDGER = "ledger violations"


@dataclass(frozen=True, kw_only=True)
class Violation:
    """Something that must not be. `turn` is empty when it concerns none."""

    kind: Kind
    turn: str
    why: str


def violations(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong in `evidence`; each finding once."""
    return [
        *_lost(evidence),
        *_duplicated(evidence),
        *_calls(evidence),
        *_order(evidence),
        *_frames(evidence),
        *_attempts(evidence),
        *_history(evidence),
        *_unpublished(evidence),
    ]


def _lost(evidence: Evidence) -> Iterator[Violation]:
    known = {turn.turn: turn for turn in evidence.turns}
    for promise in evidence.promises:
        turn = known.get(promise.turn)
        if turn is None:
            yield Violation(kind=Kind.LOST, turn=promise.turn, why="was accepted and is not in the ledger")
        elif not turn.terminal:
            yield Violation(kind=Kind.LOST, turn=promise.turn, why=f"was accepted and is still {turn.state}")
    for turn in evidence.turns:
        if not turn.terminal and turn.turn not in {promise.turn for promise in evidence.promises}:
            yield Violation(kind=Kind.LOST, turn=turn.turn, why=f"is recorded and still {turn.state}")


def _duplicated(evidence: Evidence) -> Iterator[Violation]:
    """One answer a turn: one text for all watchers, one end in the history, one result."""
    known = {turn.turn: turn for turn in evidence.turns}
    for transcript in evidence.transcripts:
        turn, shown = known.get(transcript.turn), "".join(frame.content for frame in transcript.frames)
        if turn is not None and turn.terminal and _complete(transcript) and shown != turn.text:
            why = f"{transcript.watcher} was shown {len(shown)} characters that are not the ledger's {len(turn.text)}"
            yield Violation(kind=Kind.DUPLICATED, turn=turn.turn, why=f"{why}: {_difference(shown, turn.text)}")
    ends = Counter(step.turn for step in evidence.steps if TurnState(step.after) in TERMINAL)
    results = Counter(result.turn for result in evidence.results)
    succeeded = Counter(attempt.turn for attempt in evidence.attempts if attempt.state == "succeeded")
    for what, counts in (("ends", ends), ("results", results), ("succeeded attempts", succeeded)):
        for turn, count in counts.items():
            if count > 1:
                yield Violation(kind=Kind.DUPLICATED, turn=turn, why=f"has {count} {what}")
    for turn in evidence.turns:
        if turn.terminal and not results[turn.turn]:
            yield Violation(kind=Kind.LOST, turn=turn.turn, why="has ended and left no result in the outbox")


def _complete(transcript: Transcript) -> bool:
    """Whether its text can be compared: what is not whole is found elsewhere."""
    return bool(transcript.frames) and transcript.frames[-1].terminal


def _difference(shown: str, kept: str) -> str:
    at = next((n for n, (one, other) in enumerate(zip(shown, kept, strict=False)) if one != other), None)
    at = min(len(shown), len(kept)) if at is None else at
    return f"from character {at}, shown {shown[at : at + 30]!r}, kept {kept[at : at + 30]!r}"


def _calls(evidence: Evidence) -> Iterator[Violation]:
    """At most one primary and one fallback call a turn, each in the ledger before it was made."""
    counts = Counter((call.turn, call.attempt) for call in evidence.calls if call.turn is not None)
    ledger = {(attempt.turn, str(attempt.ordinal)) for attempt in evidence.attempts}
    for (turn, attempt), count in counts.items():
        if count > 1 or attempt not in {"1", "2"}:
            why = f"asked a model {count} times as attempt {attempt}"
            yield Violation(kind=Kind.CALLS, turn=str(turn), why=why)
        elif (turn, attempt) not in ledger:
            why = f"asked a model as attempt {attempt}, which the ledger does not have"
            yield Violation(kind=Kind.CALLS, turn=str(turn), why=why)


def _order(evidence: Evidence) -> Iterator[Violation]:
    """Turns of a conversation are recorded as accepted, and answered, shown and told one after the other."""
    conversations: dict[str, list[TurnRow]] = defaultdict(list)
    for turn in sorted(evidence.turns, key=lambda turn: turn.seq):
        conversations[turn.conversation].append(turn)
    places = {promise.turn: promise.place for promise in evidence.promises}
    results = {result.turn: result.place for result in evidence.results}
    for turns in conversations.values():
        for earlier, later in pairwise(turns):
            yield from _pair(earlier, later)
            if places.get(earlier.turn, -1) > places.get(later.turn, len(places)):
                yield _out_of_order(later, earlier, "was accepted before, and recorded after,")
            if results.get(earlier.turn, 0) > results.get(later.turn, results.get(earlier.turn, 0)):
                yield _out_of_order(later, earlier, "has its result before")


def _pair(earlier: TurnRow, later: TurnRow) -> Iterator[Violation]:
    if later.ended is not None and (earlier.ended is None or later.ended < earlier.ended):
        yield _out_of_order(later, earlier, "ended before")
    if later.visible is not None and (earlier.ended is None or later.visible < earlier.ended):
        yield _out_of_order(later, earlier, "was shown before the end of")


def _out_of_order(later: TurnRow, earlier: TurnRow, how: str) -> Violation:
    why = f"{how} {earlier.turn}, number {earlier.seq} of {later.conversation}"
    return Violation(kind=Kind.ORDER, turn=later.turn, why=why)


def _frames(evidence: Evidence) -> Iterator[Violation]:
    """Every watcher got every frame once, in order, the terminal one last, then `[DONE]`."""
    for transcript in evidence.transcripts:
        numbers = [frame.seq for frame in transcript.frames]
        ends = [frame.seq for frame in transcript.frames if frame.terminal]
        found: list[str] = []
        if repeated := sorted(number for number, count in Counter(numbers).items() if count > 1):
            found.append(f"frames {repeated} twice")
        elif numbers != list(range(len(numbers))):
            found.append(f"frames {numbers} instead of all, in order")
        if len(ends) != 1:
            found.append(f"{len(ends)} terminal frames")
        elif not transcript.frames[-1].terminal:
            found.append("frames after the terminal one")
        if not transcript.done:
            found.append("no end of its stream")
        for why in found:
            yield Violation(kind=Kind.FRAMES, turn=transcript.turn, why=f"{transcript.watcher} got {why}")


def _attempts(evidence: Evidence) -> Iterator[Violation]:
    """A call that did not succeed says why; none is left open under a turn that has ended."""
    ended = {turn.turn for turn in evidence.turns if turn.terminal}
    for attempt in evidence.attempts:
        what = f"attempt {attempt.ordinal} is {attempt.state}"
        if attempt.turn in ended and not attempt.over:
            yield Violation(kind=Kind.LEDGER, turn=attempt.turn, why=f"{what} though the turn has ended")
        elif attempt.state in {"failed", "abandoned"} and not attempt.error:
            yield Violation(kind=Kind.LEDGER, turn=attempt.turn, why=f"{what} without a reason")


def _history(evidence: Evidence) -> Iterator[Violation]:
    """Each step is one the state machine has, begins where the last one ended, under an epoch no lower."""
    paths: dict[str, list[Step]] = defaultdict(list)
    for step in evidence.steps:
        paths[step.turn].append(step)
    for turn in evidence.turns:
        path = paths.get(turn.turn, [])
        if not path or path[0].before is not None or path[-1].after != turn.state:
            yield _bad_history(turn.turn, f"does not lead from nothing to {turn.state}")
    for turn, path in paths.items():
        for earlier, later in pairwise(path):
            if later.before != earlier.after:
                yield _bad_history(turn, f"leaves {later.before} after it came to {earlier.after}")
            elif TurnState(later.after) not in TRANSITIONS[TurnState(earlier.after)]:
                yield _bad_history(turn, f"goes from {earlier.after} to {later.after}")
            if later.epoch < earlier.epoch:
                yield _bad_history(turn, f"falls from epoch {earlier.epoch} to {later.epoch}")


def _bad_history(turn: str, how: str) -> Violation:
    return Violation(kind=Kind.LEDGER, turn=turn, why=f"its history {how}")


def _unpublished(evidence: Evidence) -> Iterator[Violation]:
    for result in evidence.results:
        if not result.published:
            yield Violation(kind=Kind.LEDGER, turn=result.turn, why="its result was never published")
