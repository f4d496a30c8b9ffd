"""The commands of `fairlead`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from cli import serve as serving
from infra.policy import PolicyInvalid
from infra.postgres.migrate import upgrade
from infra.settings import Settings
from schemas.agents import Lane
from simulators.process import Dialect
from simulators.process import run as run_simulator

app = typer.Typer(
    name="fairlead",
    help="Event-driven, asynchronous multi-agent conversations.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
serve_app = typer.Typer(help="Run one process of an installation, until SIGTERM.", no_args_is_help=True)
app.add_typer(serve_app, name="serve")


@serve_app.command("gateway")
def serve_gateway() -> None:
    """Take messages in and show answers: HTTP, SSE, WebSocket, the OpenAI-compatible endpoint."""
    serving.gateway(Settings())


@serve_app.command("orchestrator")
def serve_orchestrator() -> None:
    """Read events, record turns, route them to their lanes."""
    serving.orchestrator(Settings())


@serve_app.command("agents")
def serve_agents(
    lane: Annotated[
        list[Lane] | None, typer.Option(help="A lane to serve; may be repeated. All of them if absent.")
    ] = None,
) -> None:
    """Answer the turns of one or more lanes."""
    serving.agents(Settings(), lane or list(Lane))


@serve_app.command("upkeep")
def serve_upkeep() -> None:
    """Re-send lost hints, end what lost its owner, publish results."""
    serving.upkeep(Settings())


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version."""
    upgrade(Settings().database.get_secret_value())
    typer.echo("The database is up to date.")


@app.command()
def simulate(
    dialect: Annotated[Dialect, typer.Argument(help="Which model server to simulate.")],
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0,
    port_file: Annotated[Path | None, typer.Option(help="Where to write the address.")] = None,
    first_token_ms: float = 120,
    inter_token_ms: float = 15,
) -> None:
    """Run a simulated model server that answers from sample dialogues and fails on demand."""
    run_simulator(
        dialect,
        host=host,
        port=port,
        port_file=port_file,
        first_token_ms=first_token_ms,
        inter_token_ms=inter_token_ms,
    )


def main() -> None:
    """Run the command line. Exit codes: 0 all ok, 1 some failed, 2 usage, 3 refused by policy."""
    try:
        app()
    except ValidationError as error:
        places = "; ".join(f"FAIRLEAD_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        typer.echo(f"fairlead: the settings do not fit: {places}", err=True)
        sys.exit(2)
    except PolicyInvalid as error:
        typer.echo(f"fairlead: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
