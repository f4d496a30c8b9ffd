"""`fairlead policy`: what is in force, read and never written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.failure import CommandFailed
from cli.operator_options import AsJson
from cli.terminal import harmless

app = typer.Typer(help="The policy: behaviour as versioned data.", no_args_is_help=True)


@app.callback()
def policy() -> None:
    """Keep `show` a command of its own while it is the only one."""


@app.command("show")
def show(
    section: Annotated[str | None, typer.Argument(help="Only this section: guardrails, agents, …")] = None,
    file: Annotated[Path | None, typer.Option(help="A policy to look at before it is put in force.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the policy that processes started here would have, and the versions of the wording behind it."""
    from infra.policy import DEFAULT_POLICY, PolicyInvalid, load_policy
    from infra.settings import Settings

    path = file or Settings().policy
    try:
        sections = load_policy(path).model_dump(mode="json")
    except PolicyInvalid as error:
        raise CommandFailed(f"{error}.") from error
    if section is not None and section not in sections:
        raise CommandFailed(f"There is no section '{section}'; there are {', '.join(sections)}.", status=2)
    shown = sections if section is None else {section: sections[section]}
    whole = {"file": str(path or DEFAULT_POLICY), "wording": wording_versions(), "policy": shown}
    typer.echo(json.dumps(whole, indent=2, ensure_ascii=False) if as_json else "\n".join(told(whole)))


def wording_versions() -> dict[str, int]:
    """Return the versions of the data that comes with the package."""
    from infra.redaction.rules import rules
    from workers.guardrails.wording import wording

    return {
        "redaction": rules().version,
        "commitments": wording("commitments").version,
        "abuse": wording("abuse").version,
    }


def told(whole: dict[str, Any]) -> Iterator[str]:
    """Yield lines: where it comes from, then every value with the names that lead to it."""
    yield f"policy   {harmless(whole['file'])}"
    yield f"wording  {', '.join(f'{name} {version}' for name, version in whole['wording'].items())}"
    yield ""
    for place, value in _leaves(whole["policy"], ""):
        yield f"{harmless(place)} = {harmless(json.dumps(value, ensure_ascii=False))}"


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType] # JSON
            yield from _leaves(inner, f"{place}.{name}" if place else str(name))  # pyright: ignore[reportUnknownArgumentType] # JSON
    else:
        yield place, value
