"""`fairlead dlq replay`: the dry run first, then a yes, then the job and its progress to the end."""

import re
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import typer
from pydantic import BaseModel

from cli.chat import styles_wanted
from cli.failure import CommandFailed
from cli.letters import as_json
from cli.operators import REFUSED, GatewayAway, Place, patiently
from cli.replays import Job, Plan, ended, planned, progress, to_do
from cli.screen import program
from schemas.replays import ReplayMode

BEGIN_SECONDS: Final = 60.0
"""Within which a dry run is counted, or a job written down."""

LOOK_SECONDS: Final = 0.5

_A_SECOND: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an operator asks for."""

    where: str
    mode: ReplayMode
    rate: float
    """Dead letters a second."""
    most: int
    stop: float
    """Percent of failures."""
    late: bool

    def body(self, *, dry_run: bool) -> dict[str, object]:
        """Return it as the gateway takes it."""
        return {
            "where": self.where,
            "mode": self.mode,
            "rate": self.rate,
            "max": self.most,
            "stop_percent": self.stop,
            "late": self.late,
            "dry_run": dry_run,
        }


class _Begun(BaseModel):
    job: Job | None = None
    plan: Plan


def replay(place: Place, wanted: Wanted, *, dry_run: bool, yes: bool, detach: bool, json_wanted: bool) -> int:
    """Show what would happen, ask, begin, watch; return the exit status.

    Raises:
        CommandFailed: the filter says nothing (2), it is not allowed or nobody said yes (3), nothing answers.
    """
    found = place.ask("/v1/replay-jobs", method="POST", body=wanted.body(dry_run=True), seconds=BEGIN_SECONDS)
    plan = place.read(_Begun, found).plan
    if dry_run and json_wanted:
        typer.echo(as_json(found), nl=False)
        return 0
    screen = planned(
        plan,
        where=wanted.where,
        mode=wanted.mode,
        rate=wanted.rate,
        most=wanted.most,
        stop=wanted.stop,
        styled=styles_wanted() and not json_wanted,
    )
    typer.echo(screen, nl=False, err=json_wanted)  # with --json, standard output is for the job alone
    if dry_run:
        return 0
    if to_do(plan, wanted.mode) == 0:
        nothing = as_json({"job": None, "plan": found["plan"]}) if json_wanted else "There is nothing to replay.\n"
        typer.echo(nothing, nl=False)
        return 0
    agreed(f"Begin this replay of {_taken(plan, wanted)}?", yes=yes)
    job = _begin(place, wanted)
    if not detach:
        return watch(place, job, json_wanted=json_wanted)
    if json_wanted:
        typer.echo(as_json({"job": job.model_dump(mode="json")}), nl=False)
    else:
        typer.echo(f"Replay job {job.job_id} has begun.{how_to_steer(place, job.job_id)}")
    return 0


def watch(place: Place, job: Job, *, json_wanted: bool) -> int:
    """Show a job's progress until it has ended, and return the exit status; Ctrl-C leaves it running.

    Raises:
        CommandFailed: the job is gone, or nothing has answered for a minute.
    """
    look = partial(read_job, place, job.job_id)
    try:
        with _shown(job) as show:
            while not job.settled:
                time.sleep(LOOK_SECONDS)
                job = patiently(look)
                show(job)
    except KeyboardInterrupt:
        typer.echo(f"\nThe job goes on without you.{how_to_steer(place, job.job_id)}", err=True)
        return 0
    if json_wanted:
        typer.echo(as_json({"job": job.model_dump(mode="json")}), nl=False)
    else:
        typer.echo(ended(job), nl=False)
        if job.failed or job.skipped or job.mode == "compare":
            typer.echo(f"Each one: {program()} dlq jobs items {job.job_id}{place.again}")
    return 0 if job.well else 1


def read_job(place: Place, job_id: str) -> Job:
    """Return a job as it is now.

    Raises:
        CommandFailed: there is none of this id, or nothing answers.
    """
    missing = f"There is no replay job {job_id} here."
    return place.read(Job, place.ask(f"/v1/replay-jobs/{job_id}", missing=missing))


def how_to_steer(place: Place, job_id: str) -> str:
    """Return the commands that watch, pause and abort a job, on lines of their own."""
    words = ("watch", "pause", "abort")
    return "".join(f"\n  {program()} dlq jobs {word} {job_id}{place.again}" for word in words)


def agreed(question: str, *, yes: bool) -> None:
    """Ask on a terminal.

    Raises:
        CommandFailed: nobody said yes (3).
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandFailed("Nothing was done: without a terminal to ask on, say --yes.", status=REFUSED)
    if not typer.confirm(question, err=True):
        raise CommandFailed("Nothing was done.", status=REFUSED)


def rate_of(text: str) -> float:
    """Return dead letters a second.

    Raises:
        CommandFailed: the text says no rate (2).
    """
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/(s|m|h))?", text.strip())
    rate = float(parts[1]) / _A_SECOND[parts[2] or "s"] if parts else 0.0
    if not 0.01 <= rate <= 1_000_000:
        raise CommandFailed("--rate is dead letters a second, minute or hour, such as 20/s or 90/m.", status=2)
    return rate


@contextmanager
def _shown(job: Job) -> Generator[Callable[[Job], None]]:
    """A progress bar on standard error while the context lasts; where that is no terminal, a line at its beginning."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        typer.echo(f"Replay job {job.job_id} is {job.state}: {progress(job)}.", err=True)
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task: TaskID = bar.add_task(job.state, total=job.total, told=progress(job))

        def show(now: Job) -> None:
            done = now.answered + now.failed + now.skipped
            bar.update(task, description=now.state, completed=done, total=now.total, told=progress(now))

        show(job)
        yield show


def _begin(place: Place, wanted: Wanted) -> Job:
    """Begin the job. Asked twice it would begin twice, so it is asked once."""
    try:
        found = place.ask("/v1/replay-jobs", method="POST", body=wanted.body(dry_run=False), seconds=BEGIN_SECONDS)
    except GatewayAway as error:
        raise CommandFailed(
            f"{error} The job may have begun all the same: look at {program()} dlq jobs ls{place.again} first."
        ) from error
    job = place.read(_Begun, found).job
    if job is None:
        raise CommandFailed(f"{place.gateway} began no job.")
    return job


def _taken(plan: Plan, wanted: Wanted) -> str:
    n = min(to_do(plan, wanted.mode), wanted.most)
    return f"{n:,} dead letter{'' if n == 1 else 's'}"
