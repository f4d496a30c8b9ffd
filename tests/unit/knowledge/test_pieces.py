"""Blocks are cut into pieces."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.knowledge.blocks import Block, BlockKind
from workers.knowledge.pieces import MOST, pieces

WORDS = st.text(st.sampled_from("abcdeü漢.!?"), min_size=1, max_size=30).filter(
    lambda word: any(map(str.isalnum, word))
)
LINES = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
TEXTS = st.lists(LINES, min_size=1, max_size=12).map("\n".join)
KINDS: st.SearchStrategy[BlockKind] = st.sampled_from(("prose", "list", "table", "code"))
HEADINGS = st.lists(st.sampled_from(("A", "B", "Why?")), max_size=3).map(tuple)
BLOCKS = st.lists(st.builds(Block, text=TEXTS, headings=HEADINGS, kind=KINDS), max_size=8)


@settings(max_examples=25)
@given(BLOCKS, st.integers(40, 120))
def test_no_text_is_lost_and_none_is_too_long(blocks: list[Block], most: int) -> None:
    """Every word of every block is in a piece, and no piece is empty, over the limit, or there twice."""
    cut = pieces(blocks, most=most)
    assert all(0 < len(piece.text) <= most and re.search(r"\w", piece.text) for piece in cut)
    assert len(set(cut)) == len(cut)
    assert cut == pieces(blocks, most=most)
    for word in {word for block in blocks for word in block.text.split()}:
        assert any(word in piece.text for piece in cut)


@settings(max_examples=25)
@given(st.lists(WORDS, min_size=1, max_size=80), KINDS)
def test_words_stay_whole_and_in_order(words: list[str], kind: BlockKind) -> None:
    """What is cut is cut between words, and they come in the order they had."""
    numbered = [f"{number}{word}" for number, word in enumerate(words)]
    cut = pieces([Block(text=" ".join(numbered), kind=kind, headings=("Why?",))], most=60)
    assert [word for piece in cut for word in piece.text.split()] == numbered


def test_blocks_stay_whole_where_they_fit() -> None:
    """A code block and a table that fit into a piece are not cut, even if the piece before is only half full."""
    code = "\n".join(f"line {n}" for n in range(60))
    table = "\n".join(f"row {n} | value" for n in range(40))
    cut = pieces(
        [Block(text="x " * 400), Block(text=code, kind="code"), Block(text=table, kind="table"), Block(text="y " * 99)]
    )
    assert any(code in piece.text for piece in cut)
    assert any(table in piece.text for piece in cut)


def test_a_long_table_keeps_its_head() -> None:
    """Each part of a table that must be cut begins with the table's head and ends with a whole row."""
    rows = [f"plan {n} | {n}00 € | {'x' * 40}" for n in range(100)]
    cut = pieces([Block(text="\n".join(["plan | price | note", *rows]), kind="table")])
    assert len(cut) > 3
    assert all(piece.text.startswith("plan | price | note\n") for piece in cut)
    assert [row for piece in cut for row in piece.text.split("\n")[1:]] == rows


def test_lists_are_cut_between_items() -> None:
    """An item and what belongs to it stay together."""
    items = [f"- item {n}\n  - {'x' * 150}\n  - {'y' * 150}" for n in range(12)]
    cut = pieces([Block(text="\n".join(items), kind="list")])
    assert [item for piece in cut for item in re.split(r"\n(?=- )", piece.text)] == items


def test_code_is_cut_between_lines() -> None:
    """Indentation survives, and no line is broken."""
    lines = [f"    value_{n} = {'1' * 60}" for n in range(60)]
    cut = pieces([Block(text="\n".join(lines), kind="code")])
    assert [line for piece in cut for line in piece.text.split("\n")] == lines


def test_a_rest_is_not_left_alone() -> None:
    """The last piece of a section is no crumb: it shares with the one before."""
    cut = pieces([Block(text="a" * 590), Block(text="b" * 590), Block(text="c" * 20)])
    assert [len(piece.text) for piece in cut] == [590, 612]


@pytest.mark.parametrize(
    "text",
    [
        "".join(map(str, range(999))),
        "".join(f"漢{n}字語" for n in range(599)),
        "".join(f"{n}{'字' * 50}。" for n in range(60)),
        "a" * 1_199 + " b",
    ],
)
def test_text_without_spaces_is_cut_all_the_same(text: str) -> None:
    """Long words and writing without spaces are cut within the limit, at sentences where there are some."""
    cut = pieces([Block(text=text)])
    assert "".join(piece.text for piece in cut).replace(" ", "") == text.replace(" ", "")
    assert all(len(piece.text) <= MOST for piece in cut)
    if "。" in text:
        assert all(piece.text.endswith("。") for piece in cut)
