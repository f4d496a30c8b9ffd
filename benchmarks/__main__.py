"""Runs the benches named on the command line, or all of them, each in a process of its own, and prints a table.

`python -m benchmarks [--json] [NAME…]`; `make bench` runs them all.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

NAMES: Final = (
    "enqueue",
    "publish",
    "extract",
    "client",
    "streams",
    "round_trips",
    "turn_overhead",
    "growth",
    "replay",
)


def main() -> int:
    """Run and print; the exit status is 1 if a bench failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure beside peers and limits.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--json", action="store_true", help="print each bench's JSON line instead of a table")
    wanted = parser.parse_args()
    unknown = set(wanted.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no bench {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    found = [(name, measured(name)) for name in wanted.names or NAMES]
    if wanted.json:
        sys.stdout.writelines(json.dumps(figures) + "\n" for _, figures in found if figures)
    else:
        Console().print(table(found))
    return 0 if all(figures for _, figures in found) else 1


def measured(name: str) -> dict[str, Any] | None:
    """Run one bench; None if it failed, which it has then told on standard error."""
    sys.stderr.write(f"{name}…\n")
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def table(found: Sequence[tuple[str, Mapping[str, Any] | None]]) -> Table:
    """Return a row for each figure of each bench."""
    shown = Table("bench", "what", "found", "target", title="Medians and ratios")
    for name, figures in found:
        if figures is None:
            shown.add_row(name, "failed", "", "")
            continue
        targets = figures.get("targets", {})
        for what, value in {**_machine(figures), **_summary(figures)}.items():
            shown.add_row(name, what, f"{value:,.2f}", str(targets.get(what, "")))
        shown.add_section()
    return shown


def _machine(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return how the machine was: of the two calibrations, the worse."""
    both = figures.get("calibration", {}).values()
    if not both:
        return {}
    return {
        "machine: fixed loop, CPU ms": max(one["cpu_ms"] for one in both),
        "machine: share of a core": min(one["core_share"] for one in both),
    }


def _summary(figures: Mapping[str, Any]) -> dict[str, float]:
    if "summary" in figures:
        return figures["summary"]
    return dict(_numbers(figures, ""))


def _numbers(figures: Mapping[str, Any], place: str) -> Generator[tuple[str, float]]:
    """Yield every number below, under the names that lead to it."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{place}{name} ")  # pyright: ignore[reportUnknownArgumentType] # JSON
        elif isinstance(value, int | float):
            yield f"{place}{name}", float(value)


if __name__ == "__main__":
    sys.exit(main())
