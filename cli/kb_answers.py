"""`fairlead kb answer`: answers that somebody writes; they win over documents."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from cli.operator_options import AsJson, Key, State, Url
from cli.operators import place_of
from cli.replay_jobs import identified
from cli.state import DEFAULT_STATE
from cli.terminal import harmless

app = typer.Typer(help="Written answers: they win over documents.", no_args_is_help=True)

_PATH = "/v1/knowledge/answers"
_SECONDS = 60.0

Question = Annotated[str, typer.Argument(help="As a visitor would ask it.")]
Answer = Annotated[str, typer.Argument(help="What agents are to know then.")]
AnswerId = Annotated[str, typer.Argument(help="An answer's id.", metavar="ID")]


class _Answer(BaseModel):
    answer_id: str
    question: str
    answer: str


class _Answers(BaseModel):
    answers: list[_Answer]


@app.command("add")
def add(
    question: Question,
    answer: Answer,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write an answer to a question."""
    from cli.letters import as_json as to_json

    body = {"question": question, "answer": answer}
    found = place_of(state, url, key).ask(_PATH, method="POST", body=body, seconds=_SECONDS)
    typer.echo(to_json(found) if as_json else written_line(found), nl=False)


@app.command("set")
def put(
    answer_id: AnswerId,
    question: Question,
    answer: Answer,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Correct a written answer."""
    from cli.letters import as_json as to_json

    wanted, body = identified(answer_id, "answer"), {"question": question, "answer": answer}
    found = place_of(state, url, key).ask(
        f"{_PATH}/{wanted}", method="PUT", body=body, seconds=_SECONDS, missing=f"There is no answer {wanted} here."
    )
    typer.echo(to_json(found) if as_json else written_line(found), nl=False)


@app.command("ls")
def ls(state: State = DEFAULT_STATE, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List written answers, latest first."""
    from cli.chat import styles_wanted
    from cli.letters import as_json as to_json
    from cli.tables import headed

    place = place_of(state, url, key)
    found = place.ask(_PATH)
    if as_json:
        typer.echo(to_json(found), nl=False)
        return
    rows = [(one.answer_id, one.question[:60], one.answer[:60]) for one in place.read(_Answers, found).answers]
    typer.echo(
        headed(("id", "question", "answer"), rows, styled=styles_wanted()) if rows else "There are none.\n", nl=False
    )


@app.command("rm")
def rm(
    answer_id: AnswerId, state: State = DEFAULT_STATE, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """Remove a written answer."""
    from cli.letters import as_json as to_json

    wanted = identified(answer_id, "answer")
    found = place_of(state, url, key).ask(
        f"{_PATH}/{wanted}", method="DELETE", seconds=_SECONDS, missing=f"There is no answer {wanted} here."
    )
    told = f"Agents know answer {wanted} no more, from snapshot {harmless(str(found['snapshot']))} on.\n"
    typer.echo(to_json(found) if as_json else told, nl=False)


def written_line(found: Mapping[str, Any]) -> str:
    """Return what the gateway says of a written answer as a line."""
    return harmless(f"Answer {found['answer_id']} is known from snapshot {found['snapshot']} on.") + "\n"
