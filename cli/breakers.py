"""`fairlead breakers`: which lanes skip their primary, and setting that by hand."""

import json
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer
from pydantic import BaseModel, ValidationError

from cli.failure import CommandFailed
from cli.operator_options import AsJson, Key, State, Url
from cli.operators import ask, operators_gateway
from cli.state import DEFAULT_STATE
from cli.terminal import harmless
from schemas.agents import ANSWERING

app = typer.Typer(help="Breakers: lanes that skip a primary that keeps failing.", no_args_is_help=True)

LaneName = Annotated[str, typer.Argument(help="A lane, or its agent: agent.discovery, discovery.")]
Reason = Annotated[str, typer.Option(help="Told to whoever looks.")]


class Breaker(BaseModel):
    """One lane, as `GET /v1/breakers` tells it."""

    lane: str
    state: Literal["closed", "probing", "open"]
    forced: Literal["closed", "open"] | None = None
    since: datetime | None = None
    retry_at: datetime | None = None
    away_until: datetime | None = None
    reason: str | None = None
    changed_by: str | None = None


class _List(BaseModel):
    breakers: list[Breaker]


@app.command("ls")
def ls(
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List every lane with a primary, and whether it is asked."""
    gateway, key = operators_gateway(state, url, key)
    found = read_breakers(gateway, key=key)
    if as_json:
        typer.echo(json.dumps({"breakers": [breaker.model_dump(mode="json") for breaker in found]}, indent=2))
    else:
        typer.echo("\n".join(line(breaker) for breaker in found))


@app.command("open")
def open_lane(
    lane: LaneName,
    reason: Reason = "",
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let the lane's turns skip their primary until `auto`, whatever is measured."""
    _force(lane, "open", reason, operators_gateway(state, url, key), as_json=as_json)


@app.command("close")
def close_lane(
    lane: LaneName,
    reason: Reason = "",
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let the lane's turns ask their primary until `auto`, whatever is measured."""
    _force(lane, "closed", reason, operators_gateway(state, url, key), as_json=as_json)


@app.command("auto")
def auto_lane(
    lane: LaneName,
    reason: Reason = "",
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let what is measured decide again."""
    _force(lane, None, reason, operators_gateway(state, url, key), as_json=as_json)


def read_breakers(gateway: str, *, key: str) -> list[Breaker]:
    """Return every lane with a primary.

    Raises:
        CommandFailed: the key does not show them, or nothing answers.
    """
    try:
        return _List.model_validate(ask(gateway, "/v1/breakers", key=key)).breakers
    except ValidationError as error:
        raise CommandFailed(f"What answers at {gateway} is not a gateway of this version.") from error


def change_breaker(gateway: str, lane: str, change: dict[str, object], *, key: str) -> Breaker:
    """Set a lane's breaker by hand, as `PUT /v1/breakers/{lane}` does.

    Raises:
        CommandFailed: the key may not, or nothing answers.
    """
    try:
        return Breaker.model_validate(ask(gateway, f"/v1/breakers/{lane}", key=key, method="PUT", body=change))
    except ValidationError as error:
        raise CommandFailed(f"What answers at {gateway} is not a gateway of this version.") from error


def line(breaker: Breaker) -> str:
    """Return a lane's breaker as one line."""
    told = [f"{breaker.lane.ljust(28)}  {(breaker.forced or breaker.state).ljust(7)}"]
    if breaker.forced:
        told.append("by hand")
    if breaker.since:
        told.append(f"since {_clock(breaker.since)}")
    if breaker.state == "open" and breaker.forced is None and breaker.retry_at:
        told.append(f"probed from {_clock(breaker.retry_at)}")
    if breaker.away_until:
        told.append(f"taken away by a drill until {_clock(breaker.away_until)}")
    if breaker.reason:
        told.append(breaker.reason)
    if breaker.changed_by:
        told.append(f"({breaker.changed_by})")
    return harmless("  ".join(told))


def _force(lane: str, forced: str | None, reason: str, where: tuple[str, str], *, as_json: bool) -> None:
    gateway, key = where
    changed = change_breaker(gateway, lane_named(lane), {"forced": forced, "reason": reason}, key=key)
    typer.echo(json.dumps(changed.model_dump(mode="json")) if as_json else line(changed))


def lane_named(name: str) -> str:
    """Return the lane that a lane's or an agent's name means.

    Raises:
        CommandFailed: there is none with a primary.
    """
    agent = name.removeprefix("agent.")
    if agent not in ANSWERING:
        raise CommandFailed(
            f"'{harmless(name)}' is no lane with a primary: there are {', '.join(ANSWERING)}.", status=2
        )
    return f"agent.{agent}"


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%H:%M:%S} UTC"
