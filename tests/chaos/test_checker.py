"""The checker finds each kind of violation where one is planted, and nothing where all is well."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.checker import Kind, violations
from tests.chaos.evidence import AttemptRow, Call, Evidence, Promise, Result, Step, Told, Transcript, TurnRow

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
PATH = ("received", "preparing", "queued", "running", "streaming", "answered")
EPOCHS = (0, 1, 1, 2, 2, 2)


def _told(*pieces: str, last: str = "done") -> list[Told]:
    phases = ["accepted", "routed", *("streaming" for _ in pieces), last]
    contents = ["", "", *pieces, ""]
    return [Told(seq=n, phase=phase, content=contents[n]) for n, phase in enumerate(phases)]


def _history(turn: str, start: datetime) -> list[Step]:
    return [
        Step(turn=turn, before=before, after=after, epoch=epoch, at=start, actor="somebody", note=None)
        for before, after, epoch in zip((None, *PATH), PATH, EPOCHS, strict=False)
    ]


def _row(turn: str, seq: int, start: datetime) -> TurnRow:
    return TurnRow(
        turn=turn,
        conversation="c",
        seq=seq,
        state="answered",
        content="<p>Hi</p>",
        closing=None,
        visible=start,
        ended=start + timedelta(seconds=1),
    )


def sound() -> Evidence:
    """Two turns of one conversation, both answered as they should be."""
    names = ("one", "two")
    starts = [NOON + timedelta(seconds=2 * n) for n in range(2)]
    return Evidence(
        promises=[Promise(turn=name, conversation="c", place=n, asked=0.0, at=0.0) for n, name in enumerate(names)],
        transcripts=[
            Transcript(turn=name, watcher="the user", frames=_told("<p>Hi", "</p>"), connections=1, done=True)
            for name in names
        ],
        turns=[_row(name, n + 1, starts[n]) for n, name in enumerate(names)],
        attempts=[AttemptRow(turn=name, ordinal=1, state="succeeded", error=None, over=True) for name in names],
        steps=[step for name, start in zip(names, starts, strict=True) for step in _history(name, start)],
        results=[Result(turn=name, place=n, published=True) for n, name in enumerate(names)],
        calls=[Call(turn=name, attempt="1", outcome="answered", at=0.0) for name in names],
    )


def _first_row(evidence: Evidence, **changes: object) -> None:
    evidence.turns = [replace(evidence.turns[0], **changes), *evidence.turns[1:]]  # pyright: ignore[reportArgumentType]  fields of every type


def _second_row(evidence: Evidence, **changes: object) -> None:
    evidence.turns = [evidence.turns[0], replace(evidence.turns[1], **changes)]  # pyright: ignore[reportArgumentType]  fields of every type


def _first_attempt(evidence: Evidence, **changes: object) -> None:
    evidence.attempts = [replace(evidence.attempts[0], **changes), *evidence.attempts[1:]]  # pyright: ignore[reportArgumentType]  fields of every type


def _first_told(evidence: Evidence, frames: list[Told]) -> None:
    evidence.transcripts[0].frames = frames


def _not_recorded(evidence: Evidence) -> None:
    evidence.promises = [*evidence.promises, Promise(turn="three", conversation="c", place=2, asked=0.0, at=0.0)]


def _not_ended(evidence: Evidence) -> None:
    _second_row(evidence, state="queued", ended=None, visible=None)


def _nobodys(evidence: Evidence) -> None:
    evidence.promises = evidence.promises[:1]
    _not_ended(evidence)


def _no_result(evidence: Evidence) -> None:
    evidence.results = evidence.results[:1]


def _two_texts(evidence: Evidence) -> None:
    _first_told(evidence, _told("<p>Hi", "</p><p>Ho</p>"))


def _closing_missing(evidence: Evidence) -> None:
    _first_row(evidence, state="truncated", content="<p>H", closing="</p>")
    _first_told(evidence, _told("<p>H", last="truncated"))


def _two_ends(evidence: Evidence) -> None:
    evidence.steps = [*evidence.steps, evidence.steps[5]]


def _two_results(evidence: Evidence) -> None:
    evidence.results = [*evidence.results, replace(evidence.results[0], place=9)]


def _two_successes(evidence: Evidence) -> None:
    evidence.attempts = [*evidence.attempts, replace(evidence.attempts[0], ordinal=2)]


def _two_primaries(evidence: Evidence) -> None:
    evidence.calls = [*evidence.calls, evidence.calls[0]]


def _two_fallbacks(evidence: Evidence) -> None:
    evidence.attempts = [*evidence.attempts, replace(evidence.attempts[0], ordinal=2, state="failed", error="x")]
    evidence.calls = [*evidence.calls, *(replace(evidence.calls[0], attempt="2") for _ in range(2))]


def _third_attempt(evidence: Evidence) -> None:
    evidence.calls = [*evidence.calls, replace(evidence.calls[0], attempt="3")]


def _unwritten_call(evidence: Evidence) -> None:
    evidence.calls = [*evidence.calls, replace(evidence.calls[0], attempt="2")]


def _ended_early(evidence: Evidence) -> None:
    _second_row(evidence, ended=NOON, visible=None)


def _shown_early(evidence: Evidence) -> None:
    _second_row(evidence, visible=NOON)


def _recorded_in_another_order(evidence: Evidence) -> None:
    one, two = evidence.promises
    evidence.promises = [replace(one, place=1), replace(two, place=0)]


def _results_in_another_order(evidence: Evidence) -> None:
    one, two = evidence.results
    evidence.results = [replace(one, place=1), replace(two, place=0)]


def _gap(evidence: Evidence) -> None:
    frames = _told("<p>Hi", "", "</p>")
    _first_told(evidence, [*frames[:3], *frames[4:]])


def _repeat(evidence: Evidence) -> None:
    frames = _told("<p>Hi</p>", "")
    _first_told(evidence, [*frames[:4], frames[3], *frames[4:]])


def _unordered(evidence: Evidence) -> None:
    frames = _told("<p>Hi</p>")
    _first_told(evidence, [frames[1], frames[0], *frames[2:]])


def _no_terminal(evidence: Evidence) -> None:
    _first_told(evidence, _told("<p>Hi</p>")[:-1])


def _two_terminals(evidence: Evidence) -> None:
    frames = _told("<p>Hi</p>")
    _first_told(evidence, [*frames, replace(frames[-1], seq=len(frames))])


def _frames_after_the_end(evidence: Evidence) -> None:
    frames = _told("<p>Hi</p>")
    _first_told(evidence, [*frames, Told(seq=len(frames), phase="streaming", content="")])


def _stream_left_open(evidence: Evidence) -> None:
    evidence.transcripts[0].done = False


def _failed_without_reason(evidence: Evidence) -> None:
    _first_attempt(evidence, state="failed")


def _abandoned_without_reason(evidence: Evidence) -> None:
    _first_attempt(evidence, state="abandoned")


def _left_open(evidence: Evidence) -> None:
    _first_attempt(evidence, state="streaming", over=False)


def _forbidden_step(evidence: Evidence) -> None:
    evidence.steps = [step for step in evidence.steps if step.after != "running"]
    evidence.steps = [replace(s, before="queued") if s.after == "streaming" else s for s in evidence.steps]


def _broken_chain(evidence: Evidence) -> None:
    evidence.steps = [step for step in evidence.steps if step.after != "preparing"]


def _no_history(evidence: Evidence) -> None:
    evidence.steps = [step for step in evidence.steps if step.turn != "two"]


def _falling_epoch(evidence: Evidence) -> None:
    evidence.steps = [*evidence.steps[:5], replace(evidence.steps[5], epoch=1), *evidence.steps[6:]]


def _unpublished(evidence: Evidence) -> None:
    evidence.results = [evidence.results[0], replace(evidence.results[1], published=False)]


PLANTED: list[tuple[Callable[[Evidence], None], Kind]] = [
    (_not_recorded, Kind.LOST),
    (_not_ended, Kind.LOST),
    (_nobodys, Kind.LOST),
    (_no_result, Kind.LOST),
    (_two_texts, Kind.DUPLICATED),
    (_closing_missing, Kind.DUPLICATED),
    (_two_ends, Kind.DUPLICATED),
    (_two_results, Kind.DUPLICATED),
    (_two_successes, Kind.DUPLICATED),
    (_two_primaries, Kind.CALLS),
    (_two_fallbacks, Kind.CALLS),
    (_third_attempt, Kind.CALLS),
    (_unwritten_call, Kind.CALLS),
    (_ended_early, Kind.ORDER),
    (_shown_early, Kind.ORDER),
    (_recorded_in_another_order, Kind.ORDER),
    (_results_in_another_order, Kind.ORDER),
    (_gap, Kind.FRAMES),
    (_repeat, Kind.FRAMES),
    (_unordered, Kind.FRAMES),
    (_no_terminal, Kind.FRAMES),
    (_two_terminals, Kind.FRAMES),
    (_frames_after_the_end, Kind.FRAMES),
    (_stream_left_open, Kind.FRAMES),
    (_failed_without_reason, Kind.LEDGER),
    (_abandoned_without_reason, Kind.LEDGER),
    (_left_open, Kind.LEDGER),
    (_forbidden_step, Kind.LEDGER),
    (_broken_chain, Kind.LEDGER),
    (_no_history, Kind.LEDGER),
    (_falling_epoch, Kind.LEDGER),
    (_unpublished, Kind.LEDGER),
]


def test_nothing_is_found_where_all_is_well() -> None:
    """Sound evidence has no violation."""
    assert violations(sound()) == []


@pytest.mark.parametrize(("plant", "kind"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_violation_is_found(plant: Callable[[Evidence], None], kind: Kind) -> None:
    """What is planted is found, under its own kind."""
    evidence = sound()
    plant(evidence)
    assert kind in {violation.kind for violation in violations(evidence)}


def test_a_truncated_answer_is_whole_with_its_closing() -> None:
    """Closing tags in the terminal frame belong to the text that the ledger has."""
    evidence = sound()
    _first_row(evidence, state="truncated", content="<p>H", closing="</p>")
    frames = _told("<p>H", last="truncated")
    _first_told(evidence, [*frames[:-1], replace(frames[-1], content="</p>")])
    assert [v.why for v in violations(evidence) if v.kind is not Kind.LEDGER] == []
