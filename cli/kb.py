"""`fairlead kb`: knowledge bases."""

import typer

from cli import kb_add

app = typer.Typer(help="Knowledge bases: what answers are taken from.", no_args_is_help=True)
app.command("add")(kb_add.add)
