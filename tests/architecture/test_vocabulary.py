"""One word, one meaning."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Module

ROW = re.compile(r"^\| \*\*(?P<word>[\w ]+)\*\* \| (?P<meaning>.+?) \| (?P<instead>.*?)\|$", re.MULTILINE)


@pytest.fixture(scope="module")
def glossary(root: Path) -> dict[str, list[str]]:
    """Each word of the glossary, and the names not to use for it."""
    text = (root / "docs" / "glossary.md").read_text(encoding="utf-8")
    return {row["word"]: re.findall(r"`(\w+)`", row["instead"]) for row in ROW.finditer(text)}


def names_in(module: Module) -> Iterator[str]:
    """Yield every name that a module gives to something."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


def as_words(name: str) -> str:
    """Return a name in lower case with its words between underscores."""
    return "_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() + "_"


def test_the_glossary_is_in_order(glossary: dict[str, list[str]]) -> None:
    """Every row is readable, and words stand in alphabetical order, each once."""
    words = list(glossary)
    assert len(words) > 40
    assert words == sorted(words)


def test_the_core_words_are_explained(glossary: dict[str, list[str]]) -> None:
    """The words of the turn's path all have their row."""
    core = "conversation turn agent lane provider attempt ledger frame settle park replay delivery sink"
    assert set(core.split()) | {"commit point", "dead letter"} <= glossary.keys()


def test_no_second_word_for_a_thing(product: list[Module], glossary: dict[str, list[str]]) -> None:
    """No name in the product is a word that the glossary gives to nothing."""
    instead = {banned: word for word, others in glossary.items() for banned in others}
    pattern = re.compile(rf"_({'|'.join(instead)})s?_")
    found = {
        f"{module.name}: {name}": instead[match[1]]
        for module in product
        for name in names_in(module)
        if (match := pattern.search(as_words(name)))
    }
    assert found == {}


def test_words_are_found_in_names() -> None:
    """Class names, plurals and leading underscores do not hide a word."""
    assert [as_words(name) for name in ("JobQueue", "_jobs", "next_job", "jobless")] == [
        "_job_queue_",
        "__jobs_",
        "_next_job_",
        "_jobless_",
    ]
