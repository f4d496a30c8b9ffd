"""Answers on a terminal: HTML becomes text piece by piece, and nothing in it can command the terminal."""

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Final

BOLD: Final = "\x1b[1m"
DIM: Final = "\x1b[2m"
ITALIC: Final = "\x1b[3m"
RESET: Final = "\x1b[0m"

_COMMANDING: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters of both sets, and those that turn the direction of writing."""

_STYLES: Final[Mapping[str, str]] = {
    "strong": BOLD,
    "b": BOLD,
    "h1": BOLD,
    "h2": BOLD,
    "h3": BOLD,
    "h4": BOLD,
    "em": ITALIC,
    "i": ITALIC,
    "code": DIM,
}
_BLOCKS: Final = frozenset({"p", "div", "h1", "h2", "h3", "h4", "ul", "ol", "pre", "blockquote", "table", "tr"})
_LISTS: Final = frozenset({"ul", "ol"})
_SILENT: Final = frozenset({"script", "style", "title", "template"})


def harmless(text: str) -> str:
    """Return text in which every character that could command a terminal is a replacement character."""
    return _COMMANDING.sub("�", text)


def dim(text: str, *, styled: bool) -> str:
    """Return harmless text, dim where styles are wanted."""
    return f"{DIM}{harmless(text)}{RESET}" if styled else harmless(text)


class TerminalText(HTMLParser):
    """Turns HTML that arrives in pieces into text for a terminal, each piece as soon as it is certain.

    Any HTML will do: what is not understood is left out, its text is kept. Without `styled` no escape sequence
    leaves here at all; with it only those that set and reset a style.
    """

    def __init__(self, *, styled: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._styled = styled
        self._out: list[str] = []
        self._styles: list[tuple[str, str]] = []
        self._lists: list[int | None] = []
        self._links: list[str] = []
        self._silent = 0
        self._verbatim = 0
        self._newlines = 2
        """Line ends that the text so far ends with: at its start none are wanted."""
        self._line_empty = True
        """Whether the line has nothing yet, or no more than an item's mark."""
        self._wanted = 0
        self._space = False

    def show(self, html: str) -> str:
        """Take in the next piece and return the text it adds."""
        self.feed(html)
        return self._taken()

    def end(self) -> str:
        """Return what was held back, styles reset. Nothing can follow."""
        self.close()
        return self._taken() + (RESET if self._styles and self._styled else "")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin what the tag means."""
        if tag in _SILENT:
            self._silent += 1
        elif tag == "br":
            self._wanted += 1
            self._space = False
        elif tag == "li":
            self._item()
        elif tag in _BLOCKS:
            self._block(tag)
        elif tag == "a":
            self._links.append(dict(attrs).get("href") or "")
        if tag in _STYLES:
            self._style(tag, _STYLES[tag])

    def handle_endtag(self, tag: str) -> None:
        """End what the tag meant."""
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BLOCKS:
            self._end_block(tag)
        elif tag == "a" and self._links:
            self._say_address(self._links.pop())
        if tag in _STYLES:
            self._unstyle(tag)

    def handle_data(self, data: str) -> None:
        """Add text as a browser would show it: runs of white space are one space."""
        if self._silent:
            return
        if self._verbatim:
            self._add(data)
            return
        for part in re.findall(r"[ \t\n\r\f]+|[^ \t\n\r\f]+", data):
            if part[0] in " \t\n\r\f":
                self._space = True
            else:
                self._word(part)

    def _word(self, word: str) -> None:
        self._end_lines()
        if self._space and not self._line_empty:
            self._out.append(" ")
        self._space = False
        self._add(word)

    def _add(self, text: str) -> None:
        self._end_lines()
        self._out.append(harmless(text).replace("\t", "    "))
        self._newlines = len(text) - len(text.rstrip("\n"))
        self._line_empty = self._newlines > 0

    def _want(self, lines: int) -> None:
        """Let the next text begin on a line of its own, after an empty one if two line ends are wanted."""
        self._space = False
        if not (self._line_empty and self._newlines == 0):  # an item's mark waits for its text
            self._wanted = max(self._wanted, lines)

    def _end_lines(self) -> None:
        missing = self._wanted - self._newlines
        if missing > 0:
            self._out.append("\n" * missing)
            self._newlines, self._line_empty = self._wanted, True
        self._wanted = 0

    def _block(self, tag: str) -> None:
        self._want(2 if tag == "p" and not self._lists else 1)
        if tag in _LISTS:
            self._lists.append(0 if tag == "ol" else None)
        self._verbatim += tag == "pre"

    def _end_block(self, tag: str) -> None:
        if tag in _LISTS and self._lists:
            self._lists.pop()
        self._verbatim = max(0, self._verbatim - (tag == "pre"))
        self._want(1)

    def _item(self) -> None:
        self._want(1)
        count = self._lists[-1] if self._lists else None
        if count is not None:
            self._lists[-1] = count + 1
        mark = "•" if count is None else f"{count + 1}."
        self._add("  " * max(1, len(self._lists)) + mark + " ")
        self._line_empty = True

    def _say_address(self, address: str) -> None:
        if address.startswith(("http://", "https://", "mailto:")):
            self._space = True
            self._word(f"({address})")

    def _style(self, tag: str, style: str) -> None:
        self._styles.append((tag, style))
        if not self._styled:
            return
        self._end_lines()
        if self._space and not self._line_empty:
            self._out.append(" ")
        self._space = False
        self._out.append(style)

    def _unstyle(self, tag: str) -> None:
        for place in reversed(range(len(self._styles))):
            if self._styles[place][0] == tag:
                del self._styles[place]
                if self._styled:
                    self._out.append(RESET + "".join(style for _, style in self._styles))
                return

    def _taken(self) -> str:
        taken = "".join(self._out)
        self._out.clear()
        return taken
