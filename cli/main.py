"""The commands of `fairlead`. Each imports its parts only when it runs: a process needs no other's."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from cli import access, breakers, conversations, dlq, kb, policy
from cli.failure import sentence_of
from cli.state import DEFAULT_STATE
from infra.settings import Settings
from schemas.agents import Lane

app = typer.Typer(
    name="fairlead",
    help="Event-driven, asynchronous multi-agent conversations.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
serve_app = typer.Typer(help="Run one process of an installation, until SIGTERM.", no_args_is_help=True)
app.add_typer(serve_app, name="serve")
app.add_typer(access.tenants_app, name="tenants")
app.add_typer(access.keys_app, name="keys")
app.add_typer(access.sites_app, name="sites")
app.add_typer(breakers.app, name="breakers")
app.add_typer(conversations.app, name="conversations")
app.add_typer(dlq.app, name="dlq")
app.add_typer(policy.app, name="policy")
app.add_typer(kb.app, name="kb")

State = Annotated[Path, typer.Option(help="Directory of a system started with `fairlead up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@serve_app.command("gateway")
def serve_gateway() -> None:
    """Take messages in and show answers: HTTP, SSE, WebSocket, the OpenAI-compatible endpoint."""
    from cli import serve

    serve.gateway(Settings())


@serve_app.command("orchestrator")
def serve_orchestrator() -> None:
    """Read events, record turns, route them to their lanes."""
    from cli import serve

    serve.orchestrator(Settings())


@serve_app.command("agents")
def serve_agents(
    lane: Annotated[
        list[Lane] | None, typer.Option(help="A lane to serve; may be repeated. All of them if absent.")
    ] = None,
) -> None:
    """Answer the turns of one or more lanes."""
    from cli import serve

    serve.agents(Settings(), lane or list(Lane))


@serve_app.command("dead-letters")
def serve_dead_letters() -> None:
    """Route turns that left their lane to the frontier, or park them for an operator."""
    from cli import serve

    serve.dead_letters(Settings())


@serve_app.command("upkeep")
def serve_upkeep() -> None:
    """Re-send lost hints, end what lost its owner, publish results."""
    from cli import serve

    serve.upkeep(Settings())


@app.command()
def demo() -> None:
    """Play a conversation on a system of its own, break a model in the middle, and show that nobody notices."""
    from cli.demo import demo as play

    sys.exit(play())


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Where the gateway listens; 0 takes a free port.")] = 8080,
    state: State = DEFAULT_STATE,
    quiet: Annotated[bool, typer.Option(help="Write the processes' lines to the log file only.")] = False,
    samples: Annotated[bool, typer.Option(help="Load the sample knowledge base for the tenant `demo`.")] = True,
    offline: Annotated[bool, typer.Option("--offline", help="Simulate no model: rules and retrieval answer.")] = False,
) -> None:
    """Run everything on this machine until Ctrl-C; what FAIRLEAD_* gives an address of is used, not started."""
    from cli.up import up as run

    Settings()  # a setting that does not fit is better told once, here
    sys.exit(run(state, port=port, quiet=quiet, samples=samples, offline=offline))


@app.command()
def chat(
    text: Annotated[str | None, typer.Argument(help="One message; from standard input if piped.")] = None,
    state: State = DEFAULT_STATE,
    url: Annotated[str | None, typer.Option(help="Base address of a gateway elsewhere; needs --key.")] = None,
    key: Annotated[str | None, typer.Option(help="API key.", envvar="FAIRLEAD_API_KEY")] = None,
    conversation: Annotated[str | None, typer.Option(help="A conversation to go on with.")] = None,
    as_json: AsJson = False,
) -> None:
    """Talk to a running system; the answer appears as it is written."""
    from cli.chat import chat as talk

    sys.exit(talk(text, state=state, url=url, key=key, conversation=conversation, as_json=as_json))


@app.command()
def explain(
    turn: Annotated[str, typer.Argument(help="A turn's id.")],
    state: State = DEFAULT_STATE,
    url: Annotated[str | None, typer.Option(help="Base address of a gateway elsewhere; needs --key.")] = None,
    key: Annotated[str | None, typer.Option(help="An operator's API key.", envvar="FAIRLEAD_OPERATOR_KEY")] = None,
    reveal: Annotated[bool, typer.Option(help="Show what the visitor wrote and was shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell the whole story of a turn: what happened, when, and who did it."""
    from cli.explain import explain as tell

    sys.exit(tell(turn, state=state, url=url, key=key, reveal=reveal, as_json=as_json))


@app.command()
def route(
    text: Annotated[str | None, typer.Argument(help="A message.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSON lines instead: {id, text, history?}.")] = None,
    router: Annotated[
        Literal["frontier", "cascade", "classifier", "rules"] | None, typer.Option(help="Instead of the policy's.")
    ] = None,
    state: State = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Say who would answer a message and why, without answering it."""
    from cli.route import route as decide

    sys.exit(decide(text, file=file, state=state, router=router, as_json=as_json))


@app.command()
def audit(
    subject: Annotated[str | None, typer.Option(help="Only what was done to it: an id, `dead_letters`.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 50,
    state: State = DEFAULT_STATE,
    url: Annotated[str | None, typer.Option(help="Base address of a gateway elsewhere; needs --key.")] = None,
    key: Annotated[str | None, typer.Option(help="An operator's API key.", envvar="FAIRLEAD_OPERATOR_KEY")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what operators did, latest first."""
    from cli.audit import audit as tell
    from cli.operators import place_of

    sys.exit(tell(place_of(state, url, key), subject=subject, limit=limit, json_wanted=as_json))


@app.command()
def drill(
    agent: Annotated[Literal["discovery"], typer.Argument(help="Whose model is taken away.")],
    lasting: Annotated[str, typer.Option("--for", help="How long it is away: 60s, 2m.")] = "60s",
    rate: Annotated[str, typer.Option(help="Messages a second, all through.")] = "4/s",
    simulator: Annotated[
        Literal["close", "hang", "status"] | None,
        typer.Option(help="Let the simulated model fail so, instead of letting workers leave it alone."),
    ] = None,
    state: State = DEFAULT_STATE,
    url: Annotated[str | None, typer.Option(help="Base address of a gateway elsewhere; needs --key.")] = None,
    key: Annotated[str | None, typer.Option(help="An operator's API key.", envvar="FAIRLEAD_OPERATOR_KEY")] = None,
    as_json: AsJson = False,
) -> None:
    """Take the fine-tuned model away under traffic, and tell what visitors would have noticed."""
    from cli.drill import drill as play

    sys.exit(play(agent, lasting=lasting, rate=rate, fault=simulator, state=state, url=url, key=key, as_json=as_json))


@app.command()
def doctor(state: State = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Say what is missing or out of reach, and how to mend it."""
    from cli.doctor import doctor as examine

    sys.exit(examine(Settings(), state=state, as_json=as_json))


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version."""
    from infra.postgres.migrate import upgrade

    upgrade(Settings().database.get_secret_value())
    typer.echo("The database is up to date.")


@app.command()
def topics(
    partitions: Annotated[int, typer.Option(help="Of each new topic; fixed from then on.", min=1)] = 12,
    replication: Annotated[int, typer.Option(help="Copies of each record.", min=1)] = 1,
) -> None:
    """Create the Kafka topics that are missing."""
    from infra.kafka.topics import create_topics

    made = asyncio.run(create_topics(Settings().kafka, partitions=partitions, replication=replication))
    typer.echo(f"Created {', '.join(made)}." if made else "All topics are there.")


@app.command()
def simulate(
    dialect: Annotated[Literal["tgi", "openai"], typer.Argument(help="Which model server to simulate.")],
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0,
    port_file: Annotated[Path | None, typer.Option(help="Where to write the address.")] = None,
    first_token_ms: float = 120,
    inter_token_ms: float = 15,
) -> None:
    """Run a simulated model server that answers from sample dialogues and fails on demand."""
    from simulators.process import run as run_simulator

    run_simulator(
        dialect,
        host=host,
        port=port,
        port_file=port_file,
        first_token_ms=first_token_ms,
        inter_token_ms=inter_token_ms,
    )


@app.command()
def contracts(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a document is not current.")] = False,
    directory: Annotated[Path, typer.Option(help="Where the documents are.")] = Path("docs"),
) -> None:
    """Write the public contract as documents: JSON Schemas, AsyncAPI, OpenAPI."""
    from cli.contracts import drift, openapi_document, write

    if not check:
        write(directory, openapi=openapi_document())
        return
    complaints = drift(directory, openapi=openapi_document())
    for complaint in complaints:
        typer.echo(complaint, err=True)
    sys.exit(1 if complaints else 0)


def main() -> None:
    """Run the command line. Exit codes: 0 all ok, 1 some failed, 2 usage, 3 refused by policy."""
    try:
        app()
    except ValidationError as error:
        places = "; ".join(f"FAIRLEAD_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        typer.echo(f"fairlead: the settings do not fit: {places}", err=True)
        sys.exit(2)
    except Exception as error:
        failed = sentence_of(error)
        if failed is None:
            raise
        typer.echo(f"fairlead: {failed}", err=True)
        sys.exit(failed.status)


if __name__ == "__main__":
    main()
