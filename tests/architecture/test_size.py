"""What is read aloud is short."""

import ast

from .conftest import Module

LINES_OF_A_FILE = 450
LINES_OF_A_FUNCTION = 60


def test_files_are_short(product: list[Module]) -> None:
    """No file of the product is longer than one noun needs."""
    lengths = {module.name: module.source.count("\n") for module in product}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_OF_A_FILE} == {}


def test_functions_are_short(product: list[Module]) -> None:
    """No function of the product, without its docstring, is longer than a screen."""
    lengths = {
        f"{module.name}:{function.name}": length_of(function) for module in product for function in module.functions()
    }
    assert {name: lines for name, lines in lengths.items() if lines > LINES_OF_A_FUNCTION} == {}


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return a function's lines, those of its docstring not counted."""
    whole = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is None:
        return whole
    return whole - ((first.end_lineno or first.lineno) - first.lineno + 1)
