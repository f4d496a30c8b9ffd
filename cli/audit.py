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

PAGE: Final = 200
_TITLES: Final = ("at, UTC", "operator's key", "did", "to", "detail")


class Deed(BaseModel):
    """One thing an operator did."""

    at: datetime
    operator: str
    verb: str
    subject: str
    detail: dict[str, Any] = {}


class _Page(BaseModel):
    rows: list[dict[str, Any]]
    next: int | None = None


def audit(place: Place, *, subject: str | None, limit: int, json_wanted: bool) -> int:
    """Print what operators did, latest first, and return the exit status.

    Raises:
        CommandFailed: the key does not show it, or nothing answers.
    """
    found: list[dict[str, Any]] = []
    before: int | None = None
    while len(found) < limit:
        query = {
            "subject": subject,
            "before": None if before is None else str(before),
            "limit": str(min(PAGE, limit - len(found))),
        }
        page = place.read(_Page, place.ask("/v1/audit", query=query))
        found += page.rows
        before = page.next
        if before is None:
            break
    if json_wanted:
        typer.echo(as_json({"rows": found, "more": before is not None}), nl=False)
        return 0
    typer.echo(told([place.read(Deed, row) for row in found], styled=styles_wanted()), nl=False)
    if before is not None:
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
