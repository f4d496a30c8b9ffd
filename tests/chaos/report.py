"""The table of a fault run: what was injected, whom it touched, what went wrong, how long the slowest took."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.chaos.checker import Kind, Violation
from tests.chaos.evidence import Evidence
from tests.chaos.faults import MODEL_FAULTS, Injected, names

_HEAD = ("fault", "injected", "turns", *(kind.value for kind in Kind), "slowest recovery")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of fault."""

    fault: str
    injected: int
    turns: frozenset[str]
    """Those it touched."""
    slowest: float
    """Seconds from the fault, or from the question if that came later, to the end of the slowest turn it touched."""


def rows(evidence: Evidence, injected: Sequence[Injected]) -> list[Row]:
    """What each kind of fault did, and all of them together."""
    ends = {turn.turn: turn.ended.timestamp() for turn in evidence.turns if turn.ended is not None}
    asked = {promise.turn: promise.asked for promise in evidence.promises}
    found = [_process_row(name, [f for f in injected if f.name == name], asked, ends) for name in names(injected)]
    found.extend(_model_row(fault, evidence, ends) for fault in MODEL_FAULTS)
    took = [ends[turn] - at for turn, at in asked.items() if turn in ends]
    everything = sum(row.injected for row in found)
    return [*found, Row(fault="all", injected=everything, turns=frozenset(asked), slowest=max(took, default=0.0))]


def _process_row(name: str, faults: Sequence[Injected], asked: dict[str, float], ends: dict[str, float]) -> Row:
    took = {
        turn: ends.get(turn, at) - max(at, fault.at)
        for fault in faults
        for turn, at in asked.items()
        if at < fault.over and ends.get(turn, fault.over) > fault.at
    }
    return Row(fault=name, injected=len(faults), turns=frozenset(took), slowest=max(took.values(), default=0.0))


def _model_row(fault: str, evidence: Evidence, ends: dict[str, float]) -> Row:
    struck = [call for call in evidence.calls if call.outcome == fault and call.turn is not None]
    took = {str(call.turn): ends.get(str(call.turn), call.at) - call.at for call in struck}
    return Row(
        fault=f"model: {fault}", injected=len(struck), turns=frozenset(took), slowest=max(took.values(), default=0.0)
    )


def table(found: Sequence[Row], wrong: Sequence[Violation]) -> str:
    """The rows as text; a violation counts for every fault that touched its turn, and once under `all`."""
    return aligned([_HEAD, *(_cells(row, wrong) for row in found)])


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Rows of equal length as text: the first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(line, widths) for line in lines)


def _cells(row: Row, wrong: Sequence[Violation]) -> tuple[str, ...]:
    mine = [violation for violation in wrong if row.fault == "all" or violation.turn in row.turns]
    counts = (str(sum(violation.kind is kind for violation in mine)) for kind in Kind)
    return (row.fault, str(row.injected), str(len(row.turns)), *counts, f"{row.slowest:.1f} s")


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if n == 0 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join((first, *others))
