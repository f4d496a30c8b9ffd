"""Blocks cut into pieces: whole paragraphs, lists, tables and code where they fit, under the headings they had."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

from schemas.knowledge import Piece
from workers.knowledge.blocks import Block

MOST: Final = 1_200
"""Characters of a piece's text."""
SHORT: Final = 80
"""Characters below which a section is told in the one above it: alone it would say too little to be found."""

_SENTENCE_END: Final = re.compile(r"(?<=[.!?…][\"'”’)\]])\s+|(?<=[.!?…])\s+|\n|(?<=[。！？])")
_ITEM: Final = re.compile(r"\n(?=\S)")


def pieces(blocks: Iterable[Block], *, most: int = MOST) -> tuple[Piece, ...]:
    """Return the pieces of a document in its order; the same blocks always give the same pieces, each once."""
    cut: dict[Piece, None] = {}
    for headings, section in groupby(_folded(blocks), key=lambda block: block.headings):
        parts = [part for block in section for part in _parts(block, most)]
        for text in _packed(parts, "\n\n", most):
            cut[Piece(heading=" > ".join(headings), text=text)] = None
    return tuple(cut)


def _folded(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield blocks with those of a short section below the heading above it; a question's answer may be short."""
    for headings, section in groupby(blocks, key=lambda block: block.headings):
        found = list(section)
        short = sum(len(block.text) for block in found) < SHORT
        if headings and short and not headings[-1].endswith("?"):
            *above, last = headings
            text = "\n".join(block.text for block in found)
            yield Block(text=f"{last}: {text}", headings=tuple(above), kind=found[0].kind if "\n" in text else "prose")
        else:
            yield from found


def _parts(block: Block, most: int) -> Iterable[str]:
    """Return a block whole if it fits, else cut where its kind may be cut."""
    if len(block.text) <= most:
        return (block.text,)
    match block.kind:
        case "table":
            return _rows(block, most)
        case "code":
            return _cut(block.text.split("\n"), "\n", most)
        case "list":
            return _cut(_ITEM.split(block.text), "\n", most)
        case "prose":
            return _cut(_sentences(block.text), " ", most)


def _rows(block: Block, most: int) -> Iterable[str]:
    head, *rows = block.text.split("\n")
    if len(head) > most // 4:
        return _cut([head, *rows], "\n", most)
    return (f"{head}\n{part}" for part in _cut(rows, "\n", most - len(head) - 1))


def _cut(units: Sequence[str], joint: str, most: int) -> list[str]:
    fitting: list[str] = []
    for unit in units:
        fitting += [unit] if len(unit) <= most else _finer(unit, most)
    return [text for text in _packed(fitting, joint, most) if text.strip()]


def _finer(unit: str, most: int) -> list[str]:
    """Cut what is longer than a piece: at lines, then at sentences, then between words, then anywhere."""
    for cut, joint in (("\n", "\n"), (_SENTENCE_END, " "), (r"\s+", " ")):
        units = [part for part in re.split(cut, unit) if part]
        if len(units) > 1:
            return _cut(units, joint, most)
    return [unit[start : start + most] for start in range(0, len(unit), most)]


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE_END.split(text) if sentence]


def _packed(units: Sequence[str], joint: str, most: int) -> list[str]:
    """Join units to texts as long as may be; a small rest shares with the one before, so that both say something."""
    groups: list[list[str]] = []
    length = most
    for unit in units:
        if groups and length + len(joint) + len(unit) <= most:
            groups[-1].append(unit)
            length += len(joint) + len(unit)
        else:
            groups.append([unit])
            length = len(unit)
    if len(groups) > 1 and length < most // 4:
        groups[-2:] = _halved(groups[-2] + groups[-1], joint, most)
    return [joint.join(group) for group in groups]


def _halved(units: Sequence[str], joint: str, most: int) -> list[list[str]]:
    """Return the units in two groups that fit and are as equal in length as can be."""
    ways = [(units[:place], units[place:]) for place in range(1, len(units))]
    lengths = [(len(joint.join(left)), len(joint.join(right))) for left, right in ways]
    best = min(
        (place for place, both in enumerate(lengths) if max(both) <= most),
        key=lambda place: abs(lengths[place][0] - lengths[place][1]),
    )
    return [list(group) for group in ways[best]]
