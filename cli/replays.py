"""Replay jobs as the gateway tells them to operators, and as lines for people."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic import BaseModel

from cli.letters import Letter, listed
from cli.sentence import seconds
from cli.tables import INDENT, aligned, counted, headed, second
from cli.terminal import dim, harmless
from schemas.replays import MAX_REPLAYS, Outcome, ReplayMode

_ANSWERED: Final[dict[ReplayMode, str]] = {
    "shadow": "to be answered for the record; no visitor is shown anything",
    "compare": "to be answered for the record and set beside the old answer; no visitor is shown anything",
    "deliver": "to be answered, and shown to their visitors",
}
_LEFT: Final[dict[Outcome, str]] = {
    "already_answered": "answered already: left alone",
    "discarded": "discarded: left alone",
    "obsolete": "marked obsolete, as their conversations moved on: left alone; --late answers them too",
    "taken_over": "in conversations that a person has: left to them",
    "moved_on": "in conversations that moved on: to be marked obsolete; --late answers them too",
    "never_a_turn": "records that never became turns: left alone; only --mode deliver sends them back",
    "replayed_too_often": f"delivered in vain {MAX_REPLAYS} times: left alone",
    "being_replayed": "being replayed by another job: left alone",
    "still_open": "whose turn has not ended: left alone",
    "gone": "whose turn is no longer kept: left alone",
}


class Plan(BaseModel):
    """What a job would do."""

    counts: dict[Outcome, int]
    sample: list[Letter] = []
    model_calls: float
    tokens: float | None = None
    seconds: float


class Job(BaseModel):
    """A replay job and how far it is."""

    job_id: str
    where: str
    mode: ReplayMode
    rate: float
    max: int
    stop_percent: float
    late: bool
    state: str
    reason: str | None = None
    created_by: str
    created_at: datetime
    ended_at: datetime | None = None
    total: int
    waiting: int
    running: int
    answered: int
    failed: int
    skipped: int
    eta_seconds: float | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing more becomes of it: also what was under way when it ended has been counted."""
        return self.state not in {"running", "paused"} and self.running == 0

    @property
    def well(self) -> bool:
        """Whether it ended by itself and nothing failed."""
        return self.state == "finished" and self.failed == 0


class Answer(BaseModel):
    """How one turn ended."""

    turn_id: str
    state: str
    model: str | None = None
    text: str | None = None
    characters: int
    tokens: int | None = None
    seconds: float | None = None


class Item(BaseModel):
    """What became of one dead letter."""

    position: int
    dead_letter_id: str
    state: str
    note: str | None = None
    old: Answer | None = None
    new: Answer | None = None
    same: bool | None = None
    difference: str | None = None


def to_do(plan: Plan, mode: ReplayMode) -> int:
    """Return for how many dead letters a job would change anything."""
    changing: tuple[Outcome, ...] = ("answer", "never_a_turn", "moved_on") if mode == "deliver" else ("answer",)
    return sum(plan.counts.get(outcome, 0) for outcome in changing)


def planned(plan: Plan, *, where: str, mode: ReplayMode, rate: float, most: int, stop: float, styled: bool) -> str:
    """Return what a job would do, as a screen of text."""
    total = sum(plan.counts.values())
    lines = [f"Dry run, {mode}: {counted(total, 'dead letter')} where {harmless(where.strip())}\n"]
    lines.append(aligned([(f"{n:,}".rjust(7), _outcome(outcome, mode)) for outcome, n in _in_order(plan)]))
    answers = min(plan.counts.get("answer", 0), most)
    if answers < plan.counts.get("answer", 0):
        lines.append(f"Of those to be answered it takes {answers:,}, the oldest (--max).\n")
    if answers:
        lines.append(
            f"About {_rounded(plan.model_calls, 'model call')}{_tokens(plan)}, within about {_lasting(plan.seconds)} "
            f"at {rate:g}/s. It stops by itself once more than {stop:g} % of at least 20 replays failed.\n"
        )
    if plan.sample:
        lines.append(f"{dim('some of them, oldest first', styled=styled)}\n{listed(plan.sample, styled=styled)}")
    return "".join(lines)


def jobs_listed(jobs: Sequence[Job], *, styled: bool) -> str:
    """Return jobs one a line, below their columns' titles."""
    if not jobs:
        return "There are no replay jobs.\n"
    titles = ("id", "since, UTC", "by", "mode", "state", "answered", "failed", "skipped", "of", "where")
    rows = [
        (
            job.job_id, second(job.created_at), job.created_by, job.mode, job.state, str(job.answered),
            str(job.failed), str(job.skipped), str(job.total), job.where,
        )
        for job in jobs
    ]  # fmt: skip
    return headed(titles, rows, styled=styled)


def progress(job: Job) -> str:
    """Return how far a job is, in a few words."""
    left = f", {job.waiting + job.running} left" if job.waiting + job.running else ""
    return f"{job.answered} answered, {job.failed} failed, {job.skipped} skipped of {job.total}{left}"


def ended(job: Job) -> str:
    """Return how a job stands or ended, in one sentence."""
    why = f" ({harmless(job.reason)})" if job.reason else ""
    took = ""
    if job.ended_at is not None:
        took = f", {_lasting((job.ended_at - job.created_at).total_seconds())} after it began"
    return f"Replay job {harmless(job.job_id)} ({job.mode}) {_standing(job)}{took}{why}: {progress(job)}.\n"


def item_told(item: Item) -> str:
    """Return what became of one dead letter: a line, and below it the difference where it was revealed."""
    told = [f"{item.position}".rjust(5), item.state.ljust(8), item.dead_letter_id]
    if item.note:
        told.append(f"({item.note})")
    if item.old is not None and item.new is not None:
        told.append(f"{_answer(item.old)} → {_answer(item.new)}{_sameness(item)}")
    line = harmless("  ".join(told)).replace("\n", " ") + "\n"
    difference = harmless(item.difference or "").splitlines()
    return line + "".join(f"{INDENT * 4}{part}\n" for part in difference)


def _in_order(plan: Plan) -> list[tuple[Outcome, int]]:
    """What is done first, then the rest, most first."""
    first: tuple[Outcome, int] = ("answer", plan.counts.get("answer", 0))
    others: list[tuple[Outcome, int]] = [(outcome, n) for outcome, n in plan.counts.items() if outcome != "answer"]
    return [first, *sorted(others, key=lambda pair: -pair[1])]


def _outcome(outcome: Outcome, mode: ReplayMode) -> str:
    if outcome == "answer":
        return _ANSWERED[mode]
    if outcome == "never_a_turn" and mode == "deliver":
        return "records that never became turns: to be put back on their topic"
    return _LEFT[outcome]


def _tokens(plan: Plan) -> str:
    return f" and {_rounded(plan.tokens, 'token')}" if plan.tokens is not None else " (tokens not known)"


def _rounded(value: float, thing: str) -> str:
    return counted(round(value), thing)


def _lasting(value: float) -> str:
    """Return a duration as people say it, long ones too."""
    if value < 120:
        return seconds(value)
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _standing(job: Job) -> str:
    if job.state == "running":
        return "is running"
    if job.state == "paused":
        return "is paused"
    if job.state == "stopped":
        return "stopped by itself"
    return "was aborted" if job.state == "aborted" else job.state


def _answer(answer: Answer) -> str:
    told = [answer.state]
    if answer.model:
        told[0] += f" by {answer.model}"
    told.append(counted(answer.characters, "character"))
    if answer.tokens is not None:
        told.append(counted(answer.tokens, "token"))
    if answer.seconds is not None:
        told.append(seconds(answer.seconds))
    return ", ".join(told)


def _sameness(item: Item) -> str:
    if item.same is None:
        return ""
    return "; the same text" if item.same else "; another text"
