"""`fairlead kb`: a tenant's knowledge base: what is in it, what it says to a message, answers written and corrected."""

from pathlib import Path
from typing import Annotated

import typer

from cli import kb_add, kb_answers
from cli.failure import CommandFailed
from cli.kb_answers import written_line
from cli.local_keys import TENANT
from cli.operator_options import AsJson, Key, State, Url
from cli.operators import place_of
from cli.state import DEFAULT_STATE

app = typer.Typer(help="Knowledge bases: what agents may know.", no_args_is_help=True)
app.add_typer(kb_answers.app, name="answer")
app.command("add")(kb_add.add)

Tenant = Annotated[str, typer.Option(help="Whose knowledge base.")]
SearchedState = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help=f"Directory of a system started with `fairlead up`. If absent: {DEFAULT_STATE} if there is one, else "
        "FAIRLEAD_DATABASE decides.",
    ),
]
Most = Annotated[int, typer.Option("--limit", min=1, max=20, help="Passages at most.")]


@app.command("ls")
def ls(state: State = DEFAULT_STATE, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List documents and written answers, with the number of their pieces."""
    from cli.chat import styles_wanted
    from cli.kb_documents import DocumentList, listed
    from cli.letters import as_json as to_json

    place = place_of(state, url, key)
    found = place.ask("/v1/knowledge/documents")
    if as_json:
        typer.echo(to_json(found), nl=False)
    else:
        typer.echo(listed(place.read(DocumentList, found).documents, styled=styles_wanted()), nl=False)


@app.command("search")
def search(
    text: Annotated[str | None, typer.Argument(help="What a visitor would write.")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="JSON lines with `id` and `text`, instead of one text; prints a line for each.")
    ] = None,
    tenant: Tenant = TENANT,
    most: Most = 10,
    state: SearchedState = None,
    as_json: AsJson = False,
) -> None:
    """Show what the knowledge base has for a message, best first, and whether it probably answers it."""
    from cli.kb_search import one_query, read_queries, run

    if (text is None) == (queries is None):
        raise CommandFailed("Give either a text or --queries FILE.", status=2)
    asked = one_query(text) if text is not None else read_queries(queries) if queries is not None else []
    run(asked, tenant=tenant, most=most, state=state, json_wanted=as_json)


@app.command("correct")
def correct(
    turn: Annotated[str, typer.Argument(help="A turn's id.", metavar="TURN")],
    answer: Annotated[str, typer.Option(help="What it should have been answered.")],
    question: Annotated[str | None, typer.Option(help="What the visitor wrote, if absent.")] = None,
    state: State = DEFAULT_STATE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Say what a turn should have been answered: from now on that wins over documents."""
    from cli.letters import as_json as to_json
    from cli.replay_jobs import identified

    wanted = identified(turn, "turn")
    body = {"answer": answer} if question is None else {"answer": answer, "question": question}
    found = place_of(state, url, key).ask(
        f"/v1/turns/{wanted}/correction",
        method="POST",
        body=body,
        seconds=60,
        missing=f"There is no turn {wanted} here.",
    )
    typer.echo(to_json(found) if as_json else written_line(found), nl=False)
