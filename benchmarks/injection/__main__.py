"""`python -m benchmarks.injection [--json]`: what gets through, and what the parts that are no model stop."""

import argparse
import asyncio
import json
import sys

from rich.console import Console
from rich.table import Table

from benchmarks.injection.cases import cases
from benchmarks.injection.suite import Found, confined, obeyed

COLUMNS = {
    "cases": "cases",
    "prompts": "prompts built",
    "escaped": "left the quotation",
    "obeyed": "model obeys",
    "nothing_seen": "… nothing seen",
    "cut": "… cut",
    "words": "… words seen",
    "markup": "active markup",
    "links": "foreign link",
    "leaks": "instructions",
    "invented_sources": "invented source",
}


def main() -> int:
    """Run all attacks; the exit status is 1 if one left its quotation, led elsewhere, ran, leaked or was false."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.injection", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    wanted = parser.parse_args()
    found = confined()
    asyncio.run(obeyed(cases(), found))
    figures = {name: one.count() for name, one in found.items()}
    if wanted.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(_table(found))
    sys.stderr.writelines(f"{what}\n" for one in found.values() for what in one.escaped)
    bad = ("escaped", "markup", "links", "leaks", "invented_sources")
    return 1 if any(one[name] for one in figures.values() for name in bad) else 0


def _table(found: dict[str, Found]) -> Table:
    table = Table("class", *COLUMNS.values(), title="Attacks, by class")
    total = dict.fromkeys(COLUMNS, 0)
    for name, one in found.items():
        figures = one.count()
        total = {column: total[column] + figures[column] for column in COLUMNS}
        table.add_row(name, *(str(figures[column]) for column in COLUMNS))
    table.add_section()
    table.add_row("all", *(str(total[column]) for column in COLUMNS))
    return table


if __name__ == "__main__":
    sys.exit(main())
