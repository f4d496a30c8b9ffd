"""The table of a fault run: what was injected, whom it touched, what went wrong, how long the slowest took."""

import json
import subprocess
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.checker import Kind, Violation
from tests.chaos.evidence import Evidence
from tests.chaos.faults import MODEL_FAULTS, Injected, names

ALL = "all"
ROOT = Path(__file__).parents[2]

_HEAD = ("fault", "injected", "turns", *(kind.value for kind in Kind), "slowest recovery")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of fault, or all of them."""

    fault: str
    injected: int
    turns: int
    """Those it touched."""
    wrong: Counter[Kind]
    """A violation counts for every fault that touched its turn, and once under `all`."""
    slowest: float
    """Seconds from the fault, or from the question if that came later, to the end of the slowest turn it touched."""

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        counts = (str(self.wrong[kind]) for kind in Kind)
        return (self.fault, str(self.injected), str(self.turns), *counts, f"{self.slowest:.1f} s")


def rows(evidence: Evidence, injected: Sequence[Injected], wrong: Sequence[Violation]) -> list[Row]:
    """What each kind of fault did, and all of them together."""
    ends = {turn.turn: turn.ended.timestamp() for turn in evidence.turns if turn.ended is not None}
    asked = {promise.turn: promise.asked for promise in evidence.promises}
    found: list[Row] = []
    for name in names(injected):
        faults = [fault for fault in injected if fault.name == name]
        found.append(_row(name, len(faults), _touched(faults, asked, ends), wrong))
    for name in MODEL_FAULTS:
        struck = [call for call in evidence.calls if call.outcome == name and call.turn is not None]
        took = {str(call.turn): ends.get(str(call.turn), call.at) - call.at for call in struck}
        found.append(_row(f"model: {name}", len(struck), took, wrong))
    everything = sum(row.injected for row in found)
    took = {turn: ends.get(turn, at) - at for turn, at in asked.items()}
    return [*found, _row(ALL, everything, took, wrong)]


def _touched(faults: Iterable[Injected], asked: dict[str, float], ends: dict[str, float]) -> dict[str, float]:
    took: dict[str, float] = {}
    for fault in faults:
        for turn, at in asked.items():
            if at < fault.over and ends.get(turn, fault.over) > fault.at:
                took[turn] = max(took.get(turn, 0.0), ends.get(turn, at) - max(at, fault.at))
    return took


def _row(name: str, injected: int, took: dict[str, float], wrong: Sequence[Violation]) -> Row:
    counts = Counter(violation.kind for violation in wrong if name == ALL or violation.turn in took)
    slowest = max(took.values(), default=0.0)
    return Row(fault=name, injected=injected, turns=len(took), wrong=counts, slowest=slowest)


def merged(rounds: Sequence[Sequence[Row]]) -> list[Row]:
    """The rows of several rounds as one table's."""
    everything = [row for some in rounds for row in some]
    order = sorted({row.fault for row in everything} - {ALL}, key=lambda name: (name.startswith("model:"), name))
    return [_sum(name, [row for row in everything if row.fault == name]) for name in (*order, ALL)]


def _sum(name: str, some: Collection[Row]) -> Row:
    return Row(
        fault=name,
        injected=sum(row.injected for row in some),
        turns=sum(row.turns for row in some),
        wrong=sum((row.wrong for row in some), Counter[Kind]()),
        slowest=max((row.slowest for row in some), default=0.0),
    )


def keep(path: Path, figures: Mapping[str, object]) -> None:
    """Write figures down, with the commit they are about."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"commit": asked.stdout.strip() or None, **figures}, indent=2) + "\n")


def table(found: Sequence[Row]) -> str:
    """The rows as text."""
    return aligned([_HEAD, *(row.cells() for row in found)])


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Rows of equal length as text: the first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if n == 0 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join((first, *others))
