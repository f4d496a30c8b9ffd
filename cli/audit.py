"""`fairlead audit`: who did what."""

import json
from datetime import datetime
from typing import Any, Final

import typer
from pydantic import BaseModel

from cli.chat import styles_wanted
from cli.letters import as_json
from cli.operators import Place
from cli.tables import headed, second

_TITLES: Final = ("at, UTC", "operator's key", "did", "to", "detail")


class Deed(BaseModel):
    """One thing an operator did."""

    at: datetime
    operator: str
    verb: str
    subject: str
    detail: dict[str, Any] = {}


def audit(place: Place, *, subject: str | None, limit: int, json_wanted: bool) -> int:
    """Print what operators did, latest first, and return the exit status.

    Raises:
        CommandFailed: the key does not show it, or nothing answers.
    """
    found, more = place.rows("/v1/audit", "before", limit=limit, query={"subject": subject})
    if json_wanted:
        typer.echo(as_json({"rows": found, "more": more}), nl=False)
        return 0
    typer.echo(told([place.read(Deed, row) for row in found], styled=styles_wanted()), nl=False)
    if more:
        typer.echo("There are more: see --limit.", err=True)
    return 0


def told(deeds: list[Deed], *, styled: bool) -> str:
    """Return deeds one a line, below their columns' titles."""
    if not deeds:
        return "Nothing was done.\n"
    rows = [(second(deed.at), deed.operator, deed.verb, deed.subject, _detail(deed)) for deed in deeds]
    return headed(_TITLES, rows, styled=styled)


def _detail(deed: Deed) -> str:
    return ", ".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in deed.detail.items()
    )
