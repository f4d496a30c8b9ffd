"""What docs/delivery.md promises is tried by tests that exist."""

import ast
import re
from pathlib import Path

import pytest

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    """The page."""
    return (root / "docs" / "delivery.md").read_text(encoding="utf-8")


def functions_of(path: Path) -> set[str]:
    """Return the names of a file's functions; none where there is no file."""
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_named_test_exists(root: Path, page: str) -> None:
    """Every test the page names is a function of the file it names."""
    named = set(NAMED.findall(page))
    assert len(named) > 30
    assert {f"{path}::{test}" for path, test in named if test not in functions_of(root / path)} == set()


def test_no_test_is_named_in_another_way(page: str) -> None:
    """Whatever looks like a test function on the page is written so that it is looked for."""
    assert set(re.findall(r"\btest_\w+\b(?!\.py)", page)) == {test for _, test in NAMED.findall(page)}


def test_each_promise_has_its_mechanism_and_its_tests(page: str) -> None:
    """Under each promise stand the sentence that says what holds it, and at least two tests."""
    promises = page.partition("\n## Promises\n")[2].partition("\n## ")[0].split("\n### ")[1:]
    assert len(promises) >= 10
    for promise in promises:
        title = promise.partition("\n")[0]
        assert "- Held by: " in promise, title
        assert len(NAMED.findall(promise)) >= 2, title
