"""A document between reading and cutting: paragraphs, lists, tables and code under their headings."""

import re
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

BlockKind: TypeAlias = Literal["prose", "list", "table", "code"]

LONGEST_HEADING: Final = 160
"""Characters. What is longer is a paragraph that somebody has made large."""

_WORDS: Final = re.compile(r"\w")


class Unreadable(Exception):
    """A document that cannot be read. The message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Something that is better not cut; where it must be, its kind says how."""

    text: str
    """Of a list or a table one line for each item or row; a table's first line is its head."""
    headings: tuple[str, ...] = ()
    """Above it, outermost first."""
    kind: BlockKind = "prose"


@dataclass(kw_only=True)
class Outline:
    """Takes headings and blocks in the order of the document."""

    blocks: list[Block] = field(default_factory=list[Block])
    title: str = ""
    """The first heading of the highest level, unless something better is known."""
    _above: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    _bare: bool = False
    """Whether nothing has come yet below the last heading."""

    def heading(self, level: int, text: str) -> None:
        """Take a heading of level 1 to 6."""
        text = " ".join(text.split())
        if not _WORDS.search(text):
            return
        if len(text) > LONGEST_HEADING:
            self.add(text)
            return
        if self._bare and level <= self._above[-1][0]:
            self._keep_bare()
        while self._above and self._above[-1][0] >= level:
            self._above.pop()
        self._above.append((level, text))
        self._bare = True
        if level == 1 and not self.title:
            self.title = text

    def add(self, text: str, kind: BlockKind = "prose") -> None:
        """Take a block; one without a letter or a digit is decoration."""
        lines = [line.rstrip() for line in text.split("\n")]
        text = "\n".join(line for line in lines if line or kind in {"code", "prose"}).strip("\n")
        if kind != "code":
            text = text.strip()
        if _WORDS.search(text):
            self.blocks.append(Block(text=text, headings=tuple(heading for _, heading in self._above), kind=kind))
            self._bare = False

    def end(self) -> "Outline":
        """Say that nothing more comes."""
        if self._bare:
            self._keep_bare()
        return self

    def _keep_bare(self) -> None:
        *above, (_, heading) = self._above
        self.blocks.append(Block(text=heading, headings=tuple(text for _, text in above)))
        self._bare = False
