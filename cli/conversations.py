"""`fairlead conversations`: taking a conversation over, writing to its visitor, giving it back."""

from datetime import datetime
from typing import Annotated, Final
from urllib.parse import quote

import typer
from pydantic import BaseModel

from cli.chat import styles_wanted
from cli.operator_options import AsJson, Key, Limit, State, Url
from cli.operators import Place, patiently, place_of
from cli.state import DEFAULT_STATE
from cli.tables import headed, second
from cli.terminal import harmless
from schemas.ids import new_key
from schemas.keepers import Keeper

app = typer.Typer(help="Conversations that a person takes over from the agents, and gives back.", no_args_is_help=True)

ConversationId = Annotated[str, typer.Argument(help="A conversation's id.", metavar="ID")]
Person = Annotated[str | None, typer.Option("--as", help="Your name, as colleagues know it; the key's id if absent.")]

PATIENCE: Final = 30.0
"""Seconds for which a message is sent again to a gateway that is away."""

_TITLES: Final = ("conversation", "who", "since, UTC", "unanswered", "why")
NO_SUCH: Final = "There is no such conversation: it begins with its first turn, and belongs to the key's tenant."


class Kept(BaseModel):
    """Who answers a conversation, as `GET /v1/conversations/{id}/takeover` tells it."""

    conversation_id: str
    keeper: Keeper
    operator: str | None = None
    reason: str | None = None
    since: datetime | None = None


class Taken(BaseModel):
    """A conversation that a person has, as `GET /v1/takeovers` lists it."""

    conversation_id: str
    operator: str
    reason: str | None
    since: datetime
    unanswered: int


class Written(BaseModel):
    """The turn that a message became."""

    turn_id: str
    conversation_id: str
    events_url: str


@app.command("ls")
def ls(
    limit: Limit = 50,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the conversations that people have, with what their visitors still wait for."""
    from cli.letters import as_json as to_json

    place = place_of(state, url, key)
    found, more = place.rows("/v1/takeovers", "after", limit=limit)
    if as_json:
        typer.echo(to_json({"rows": found, "more": more}), nl=False)
        return
    typer.echo(listed([place.read(Taken, one) for one in found], styled=styles_wanted()), nl=False)
    if more:
        typer.echo("There are more: see --limit.", err=True)


@app.command("show")
def show(
    conversation: ConversationId,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show who answers a conversation: agents, or a person."""
    _tell(place_of(state, url, key), conversation, "GET", None, as_json=as_json)


@app.command("take")
def take(
    conversation: ConversationId,
    person: Person = None,
    reason: Annotated[str, typer.Option(help="Told to whoever looks; the audit keeps it.")] = "",
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Silence the agents in a conversation, at once and until it is given back."""
    body = {"operator": person, "reason": reason}
    _tell(place_of(state, url, key), conversation, "POST", body, as_json=as_json)


@app.command("give-back")
def give_back(
    conversation: ConversationId,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let the agents answer again, from the next message on; they read what you wrote."""
    _tell(place_of(state, url, key), conversation, "DELETE", None, as_json=as_json)


@app.command("say")
def say(
    conversation: ConversationId,
    text: Annotated[str, typer.Argument(help="What the visitor shall read: plain text.")],
    person: Person = None,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write to the visitor of a conversation that was taken over."""
    from cli.letters import as_json as to_json

    place = place_of(state, url, key)
    body, once = {"text": text, "operator": person}, new_key()

    def send() -> object:
        return place.ask(_path(conversation, "messages"), method="POST", body=body, once=once, missing=NO_SUCH)

    # Sent again, it is not written twice: whether a gateway that went away had taken it, nobody knows.
    written = place.read(Written, patiently(send, seconds=PATIENCE))
    typer.echo(
        to_json(written.model_dump(mode="json"))
        if as_json
        else f"Turn {harmless(written.turn_id)} says it, after what is open before it.\n",
        nl=False,
    )


def listed(found: list[Taken], *, styled: bool) -> str:
    """Return conversations one a line, below their columns' titles."""
    if not found:
        return "Agents answer every conversation.\n"
    rows = [
        (one.conversation_id, one.operator, second(one.since), str(one.unanswered), one.reason or "") for one in found
    ]
    return headed(_TITLES, rows, styled=styled)


def told(kept: Kept) -> str:
    """Return who answers a conversation as one sentence."""
    since = f" since {second(kept.since)} UTC" if kept.since else ""
    if kept.keeper == "agent":
        return harmless(f"Agents answer {kept.conversation_id}{since}.")
    why = f": {kept.reason}" if kept.reason else ""
    return harmless(f"{kept.operator or 'A person'} has {kept.conversation_id}{since}{why}.")


def _tell(place: Place, conversation: str, method: str, body: object, *, as_json: bool) -> None:
    from cli.letters import as_json as to_json

    found = place.ask(_path(conversation, "takeover"), method=method, body=body, missing=NO_SUCH)
    kept = place.read(Kept, found)
    typer.echo(to_json(kept.model_dump(mode="json")) if as_json else f"{told(kept)}\n", nl=False)


def _path(conversation: str, what: str) -> str:
    return f"/v1/conversations/{quote(conversation, safe='')}/{what}"
