"""The catalogue of numbers and those who tell them agree."""

import ast
from collections.abc import Iterator
from typing import cast

from prometheus_client import Counter, Gauge, Histogram

from infra.telemetry import metrics

from .conftest import Module

CATALOGUE = {name: value for name, value in vars(metrics).items() if isinstance(value, Counter | Gauge | Histogram)}

TELLING = {"inc", "dec", "set", "set_to_current_time", "observe", "set_function", "time", "track_inprogress"}


def _name(node: ast.expr) -> str | None:
    """Return the catalogue's name that an expression stands for, `X` or `metrics.X`."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name if name in CATALOGUE else None


def _uses(module: Module) -> Iterator[tuple[str, int]]:
    """Yield each number a module tells, and with how many labels."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = _name(node.func.value)
            if name is not None and node.func.attr == "labels":
                yield name, len(node.args) + len(node.keywords)
            elif name is not None and node.func.attr in TELLING:
                yield name, 0


def test_numbers_are_told_with_their_labels(product: list[Module]) -> None:
    """Every use of a number gives exactly the labels that the catalogue gives it; a wrong one fails when it is told."""
    wrong: list[str] = []
    for module in product:
        for name, given in _uses(module):
            declared = len(cast("tuple[str, ...]", vars(CATALOGUE[name])["_labelnames"]))
            if given != declared:
                wrong.append(f"{module.name}: {name} has {declared} labels, {given} given")
    assert wrong == []


def test_every_number_is_told(product: list[Module]) -> None:
    """No number of the catalogue is only promised, except those listed as such."""
    told = {name for module in product for name, _ in _uses(module)}
    assert CATALOGUE.keys() - told == set()
