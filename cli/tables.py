"""Rows of text in columns, harmless to the terminal they are shown on."""

from collections.abc import Sequence
from datetime import UTC, datetime

from cli.terminal import dim, harmless

INDENT = "  "


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of the same length as lines with their columns below one another; columns without text left out."""
    if not rows:
        return ""
    safe = [[harmless(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in safe) for column in range(len(safe[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width) for row in safe)
    return "".join(f"{INDENT}{line.rstrip()}\n" for line in lines)


def headed(titles: Sequence[str], rows: Sequence[Sequence[str]], *, styled: bool) -> str:
    """Return rows below their columns' titles."""
    first, *others = aligned([titles, *rows]).splitlines()
    return "".join(f"{line}\n" for line in (dim(first, styled=styled), *others))


def facts(named: Sequence[tuple[str, str | None]], *, styled: bool) -> str:
    """Return names and values a line each; those without a value left out."""
    rows = [(name, value) for name, value in named if value]
    width = max((len(name) for name, _ in rows), default=0)
    return "".join(f"{dim(name.ljust(width), styled=styled)}  {harmless(value)}\n" for name, value in rows)


def clock(moment: datetime | None) -> str | None:
    """Return a moment to the millisecond."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC" if moment else None


def second(moment: datetime) -> str:
    """Return a moment to the second, UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def counted(n: int, thing: str) -> str:
    """Return a number and what it counts."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
