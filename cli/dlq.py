"""`fairlead dlq`: dead letters seen, counted, followed, discarded, exported and answered anew."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from cli import replay_jobs
from cli.failure import CommandFailed
from cli.operator_options import AsJson, Key, Limit, Reveal, State, Url, Yes
from cli.operators import Place, patiently, place_of
from cli.replay_jobs import identified
from cli.state import DEFAULT_STATE
from schemas.replays import ReplayMode

app = typer.Typer(
    help="Dead letters: turns, and records that never became one, that left their lane.", no_args_is_help=True
)
app.add_typer(replay_jobs.app, name="jobs")

EXAMPLE: Final = "agent=discovery and reason=queue_deadline and state=unanswered"
EXPORT_SECONDS: Final = 60.0
FOLLOW_SECONDS: Final = 1.0
LATEST: Final = 10
"""Shown before the first new one."""

Where = Annotated[str, typer.Option(metavar="FILTER", help=f"Which ones; all if absent. {EXAMPLE}")]
Chosen = Annotated[str, typer.Option(metavar="FILTER", help=f"Which ones. {EXAMPLE}")]
LetterId = Annotated[str, typer.Argument(help="A dead letter's id.", metavar="ID")]


@app.command("ls")
def ls(
    where: Where = "",
    limit: Limit = 50,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first, without message text."""
    from cli.chat import styles_wanted
    from cli.letters import as_json as to_json
    from cli.letters import listed, read_letters

    found, more = read_letters(place_of(state, url, key), where, limit=limit)
    if as_json:
        letters = [letter.model_dump(mode="json") for letter in found]
        typer.echo(to_json({"dead_letters": letters, "more": more}), nl=False)
        return
    typer.echo(listed(found, styled=styles_wanted()) or "There are none.\n", nl=False)
    if more:
        typer.echo("There are more: see --limit.", err=True)


@app.command("show")
def show(
    dead_letter_id: LetterId,
    reveal: Reveal = False,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter; with --reveal also what the visitor wrote and was shown, and the record as it came."""
    from cli.chat import styles_wanted
    from cli.letters import WholeLetter, told
    from cli.letters import as_json as to_json

    place, wanted = place_of(state, url, key), identified(dead_letter_id, "dead letter")
    found = place.ask(
        f"/v1/dead-letters/{wanted}",
        query={"reveal": "true" if reveal else None},
        missing=f"There is no dead letter {wanted} here.",
    )
    typer.echo(to_json(found) if as_json else told(place.read(WholeLetter, found), styled=styles_wanted()), nl=False)


@app.command("stats")
def stats(
    where: Where = "", state: State = DEFAULT_STATE, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """Count dead letters by reason, state and agent."""
    from cli.chat import styles_wanted
    from cli.letters import as_json as to_json
    from cli.letters import read_stats, summed_up

    found = read_stats(place_of(state, url, key), where)
    told = to_json(found.model_dump(mode="json")) if as_json else summed_up(found, styled=styles_wanted())
    typer.echo(told, nl=False)


@app.command("tail")
def tail(
    where: Where = "", state: State = DEFAULT_STATE, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """Show the latest dead letters and every new one until Ctrl-C; with --json one object a line."""
    from cli.letters import PAGE, NewLetters, line, one_line, read_page

    place = place_of(state, url, key)
    follower = NewLetters(lambda cursor: read_page(place, where, limit=PAGE, cursor=cursor))
    try:
        found = follower.latest(LATEST)
        while True:
            for letter in found:
                typer.echo(one_line(letter.model_dump(mode="json")) if as_json else line(letter))
            time.sleep(FOLLOW_SECONDS)
            found = patiently(follower.new)
    except KeyboardInterrupt:
        return


@app.command("discard")
def discard(
    reason: Annotated[str, typer.Option(help="Why nobody is going to answer them; the audit keeps it.")],
    ids: Annotated[list[str] | None, typer.Argument(help="Dead letters by their ids.", metavar="ID...")] = None,
    where: Chosen = "",
    yes: Yes = False,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Say that nobody is going to answer these dead letters. They are kept; those answered or under way stay."""
    from cli.letters import as_json as to_json
    from cli.replay import agreed

    if ids and where:
        raise CommandFailed("Say which ones either by --where or by their ids.", status=2)
    place, wanted = place_of(state, url, key), [identified(one, "dead letter") for one in ids or []]
    n = len(wanted) if wanted else _discardable(place, where)
    agreed(f"Discard {n:,} dead letter{'' if n == 1 else 's'}?", yes=yes)
    chosen: dict[str, object] = {"ids": wanted} if wanted else {"where": where}
    found = place.ask("/v1/dead-letters/discard", method="POST", body={**chosen, "reason": reason}, seconds=60)
    done = int(found["discarded"])
    if as_json:
        typer.echo(to_json({"discarded": done}), nl=False)
    else:
        typer.echo(f"Discarded {done:,} dead letter{'' if done == 1 else 's'}.")
    if wanted and done < len(set(wanted)):
        raise CommandFailed(f"{len(set(wanted)) - done} of them stay: unknown, discarded, answered or under way.")


@app.command("export")
def export(
    where: Where = "",
    reveal: Reveal = False,
    out: Annotated[
        Path | None, typer.Option(help="File to write, readable by you alone; else standard output.")
    ] = None,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
) -> None:
    """Write dead letters as JSON lines, newest first; with --reveal with texts and record bytes."""
    place = place_of(state, url, key)
    if out is None:
        for line in _exported(place, where, reveal=reveal):
            sys.stdout.write(line)
        return
    # Written beside and renamed: a file of that name is a whole export.
    unfinished = out.with_name(f"{out.name}.new")
    n = 0
    try:
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            for line in _exported(place, where, reveal=reveal):
                file.write(line)
                n += 1
        unfinished.replace(out)
    except OSError as error:
        raise CommandFailed(f"{out} cannot be written: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    typer.echo(f"Wrote {n:,} dead letter{'' if n == 1 else 's'} to {out}.", err=True)


@app.command("replay")
def replay(
    where: Chosen = "",
    mode: Annotated[
        ReplayMode,
        typer.Option(help="Answer for the record, show the answer to the visitor, or set old beside new."),
    ] = "shadow",
    rate: Annotated[str, typer.Option(help="Dead letters a second, minute or hour at most: 20/s, 90/m.")] = "20/s",
    most: Annotated[int, typer.Option("--max", min=1, max=100_000, help="Dead letters at most, the oldest.")] = 500,
    stop_at: Annotated[
        float, typer.Option(metavar="PERCENT", min=0.1, max=100, help="Stop by itself once more than this failed.")
    ] = 20.0,
    late: Annotated[bool, typer.Option("--late", help="Deliver also where the conversation has moved on.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    yes: Yes = False,
    detach: Annotated[bool, typer.Option("--detach", help="Begin the job and do not wait for its end.")] = False,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Answer dead letters anew: says what would happen, asks, begins a job and shows its progress.

    Ctrl-C leaves the job running. Exit status 1 if any replay failed, or the job was stopped or aborted.
    """
    from cli.replay import Wanted, rate_of
    from cli.replay import replay as run

    wanted = Wanted(where=where, mode=mode, rate=rate_of(rate), most=most, stop=stop_at, late=late)
    sys.exit(run(place_of(state, url, key), wanted, dry_run=dry_run, yes=yes, detach=detach, json_wanted=as_json))


def _discardable(place: Place, where: str) -> int:
    """Return how many would be discarded; an empty filter is refused as the gateway refuses it."""
    from cli.letters import read_stats
    from schemas.letter_filter import FilterError, parse_filter

    try:
        parse_filter(where)
    except FilterError as error:
        raise CommandFailed(str(error), status=2) from error
    found = read_stats(place, where)
    return sum(count.n for count in found.counts if count.state in {"unanswered", "obsolete"})


def _exported(place: Place, where: str, *, reveal: bool) -> Iterator[str]:
    """Yield lines of JSON in which no character can command a terminal."""
    import json

    from cli.http import HttpFailed, lines_of
    from cli.operators import plainly

    query = {"where": where or None, "reveal": "true" if reveal else None}
    try:
        for line in lines_of(place.url("/v1/dead-letters/export", query), key=place.key, seconds=EXPORT_SECONDS):
            yield json.dumps(json.loads(line)) + "\n"
    except HttpFailed as error:
        raise plainly(error, place.gateway) from error
