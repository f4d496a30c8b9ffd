"""Options that the operators' commands share."""

from pathlib import Path
from typing import Annotated

import typer

State = Annotated[Path, typer.Option(help="Directory of a system started with `fairlead up`.")]
Url = Annotated[str | None, typer.Option(help="Base address of a gateway elsewhere; needs --key.")]
Key = Annotated[str | None, typer.Option(help="An operator's API key.", envvar="FAIRLEAD_OPERATOR_KEY")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show message texts; the audit keeps that you did.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")]
