"""`fairlead dlq jobs`: replay jobs listed, watched, paused, resumed, aborted, and what became of each dead letter."""

import re
import sys
from typing import Annotated, Any, Final, Literal

import typer
from pydantic import BaseModel

from cli.failure import CommandFailed
from cli.operator_options import AsJson, Key, Limit, Reveal, State, Url
from cli.operators import Place, place_of
from cli.state import DEFAULT_STATE
from cli.terminal import harmless

app = typer.Typer(help="Replay jobs: dead letters on their way to an answer.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="A replay job's id.", metavar="ID")]
Only = Annotated[
    Literal["waiting", "running", "answered", "failed", "skipped"] | None,
    typer.Option(help="Only dead letters of which this became."),
]

PAGE: Final = 200
UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _Jobs(BaseModel):
    jobs: list[dict[str, Any]]
    next: str | None = None


class _Items(BaseModel):
    items: list[dict[str, Any]]
    next: int | None = None


@app.command("ls")
def ls(
    limit: Limit = 50, state: State = DEFAULT_STATE, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """List replay jobs, latest first."""
    from cli.chat import styles_wanted
    from cli.letters import as_json as to_json
    from cli.replays import Job, jobs_listed

    place = place_of(state, url, key)
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(found) < limit:
        query = {"limit": str(min(PAGE, limit - len(found))), "cursor": cursor}
        page = place.read(_Jobs, place.ask("/v1/replay-jobs", query=query))
        found += page.jobs
        cursor = page.next
        if cursor is None:
            break
    if as_json:
        typer.echo(to_json({"jobs": found, "more": cursor is not None}), nl=False)
        return
    typer.echo(jobs_listed([place.read(Job, job) for job in found], styled=styles_wanted()), nl=False)
    if cursor is not None:
        typer.echo("There are more: see --limit.", err=True)


@app.command("watch")
def watch(
    job_id: JobId, state: State = DEFAULT_STATE, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """Show a job's progress until it has ended; Ctrl-C leaves it running. Exit status 1 if not all went well."""
    from cli.replay import read_job
    from cli.replay import watch as look

    place, job_id = place_of(state, url, key), identified(job_id, "replay job")
    sys.exit(look(place, read_job(place, job_id), json_wanted=as_json))


@app.command("pause")
def pause(
    job_id: JobId, state: State = DEFAULT_STATE, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """Start nothing more of a job until it is resumed; what is under way goes on."""
    _change("pause", job_id, place_of(state, url, key), as_json=as_json)


@app.command("resume")
def resume(
    job_id: JobId, state: State = DEFAULT_STATE, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """Go on with a job where it was paused."""
    _change("resume", job_id, place_of(state, url, key), as_json=as_json)


@app.command("abort")
def abort(
    job_id: JobId, state: State = DEFAULT_STATE, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """Start nothing more of a job, ever; what is under way goes on and is counted."""
    _change("abort", job_id, place_of(state, url, key), as_json=as_json)


@app.command("items")
def items(
    job_id: JobId,
    only: Only = None,
    reveal: Reveal = False,
    limit: Limit = 50,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List what became of each dead letter of a job, old answer beside new; with --reveal their differences."""
    from cli.letters import as_json as to_json
    from cli.replays import Item, item_told

    place, job_id = place_of(state, url, key), identified(job_id, "replay job")
    found, more = _items(place, job_id, only, limit=limit, reveal=reveal)
    if as_json:
        typer.echo(to_json({"items": found, "more": more}), nl=False)
        return
    for item in found:
        typer.echo(item_told(place.read(Item, item)), nl=False)
    if not found:
        typer.echo("There are none.")
    if more:
        typer.echo("There are more: see --limit.", err=True)


def identified(text: str, what: str) -> str:
    """Return an id as the gateway takes it.

    Raises:
        CommandFailed: it is none (2).
    """
    found = text.strip().lower()
    if not UUID.fullmatch(found):
        raise CommandFailed(
            f"'{harmless(text)}' is no {what}'s id: one looks like 3f9d3f0e-6b5e-5a60-9a4e-0c8d6f1f2a11.", status=2
        )
    return found


def _items(
    place: Place, job_id: str, only: str | None, *, limit: int, reveal: bool
) -> tuple[list[dict[str, Any]], bool]:
    """Return up to `limit` items, and whether there are more."""
    found: list[dict[str, Any]] = []
    after: int | None = 0
    while len(found) < limit and after is not None:
        query = {
            "state": only,
            "after": str(after),
            "limit": str(min(PAGE, limit - len(found))),
            "reveal": "true" if reveal else None,
        }
        missing = f"There is no replay job {job_id} here."
        page = place.read(_Items, place.ask(f"/v1/replay-jobs/{job_id}/items", query=query, missing=missing))
        found += page.items
        after = page.next
    return found, after is not None


def _change(verb: str, job_id: str, place: Place, *, as_json: bool) -> None:
    from cli.letters import as_json as to_json
    from cli.replays import Job, ended

    job_id = identified(job_id, "replay job")
    missing = f"There is no replay job {job_id} here."
    found = place.ask(f"/v1/replay-jobs/{job_id}/{verb}", method="POST", missing=missing)
    typer.echo(to_json({"job": found}) if as_json else ended(place.read(Job, found)), nl=False)
