"""A diagram drawn as SVG: boxes, arrows and text, nothing that runs, refers or loads."""

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Final
from xml.sax.saxutils import escape

from workers.assets.diagram import Diagram
from workers.assets.layout import Layout, Point, Size, Way, lay_out
from workers.assets.rules import check_svg

FONT: Final = "Helvetica, Arial, sans-serif"
BOX_CHARS: Final = 24
"""In widths of a Latin letter; those of East Asian scripts are two wide."""
EDGE_CHARS: Final = 20
TITLE_CHARS: Final = 48

_CHAR: Final = 7.2
_LINE: Final = 17.0
_PAD: Final = 12.0
_MARGIN: Final = 24.0
_HEAD: Final = 8.0


def draw(diagram: Diagram) -> bytes:
    """Return the diagram as an SVG document of at most some 100 KB, the same for the same diagram.

    Raises:
        SvgRefused: what was drawn breaks a rule of ours, which is a defect of this module.
    """
    number = {node.id: at for at, node in enumerate(diagram.nodes)}
    boxes = [_lines(node.label, BOX_CHARS) for node in diagram.nodes]
    labels = [_lines(edge.label, EDGE_CHARS) for edge in diagram.edges]
    down = diagram.direction == "TB"
    layout = lay_out(
        [_size(lines, down=down) for lines in boxes],
        [(number[edge.source], number[edge.target]) for edge in diagram.edges],
        [_size(lines, down=down, pad=4) if lines else None for lines in labels],
    )
    document = _Drawing(diagram.title, layout, down=down).document(boxes, labels).encode()
    check_svg(document)
    return document


class _Drawing:
    """Turns places of a layout into markup."""

    def __init__(self, title: str, layout: Layout, *, down: bool) -> None:
        self._down = down
        self._title = title
        self._layout = layout
        self._heading = _lines(title, TITLE_CHARS)
        width, height = self._sides(layout.size)
        heading = _extent(self._heading)
        self._width = max(width, heading[0]) + 2 * _MARGIN
        self._top = _MARGIN + heading[1] + _PAD
        self._height = self._top + height + _MARGIN
        self._left = (self._width - width) / 2

    def document(self, boxes: Sequence[list[str]], labels: Sequence[list[str]]) -> str:
        size = f'width="{_n(self._width)}" height="{_n(self._height)}"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(self._width)} {_n(self._height)}" {size} '
            f'role="img" font-family="{FONT}" font-size="13" text-anchor="middle" fill="#1f2933">',
            f"<title>{_escaped(self._title)}</title>",
            f'<rect x="0" y="0" {size} fill="#ffffff"/>',
            self._text(self._heading, self._width / 2, _MARGIN + _extent(self._heading)[1] / 2, ' font-weight="bold"'),
            *(self._arrow(way) for way in self._layout.ways),
            *(self._label(way, lines) for way, lines in zip(self._layout.ways, labels, strict=True) if way.label),
            *(self._box(middle, lines) for middle, lines in zip(self._layout.boxes, boxes, strict=True)),
            "</svg>\n",
        ]
        return "\n".join(parts)

    def _box(self, middle: Point, lines: list[str]) -> str:
        rect = self._rect(middle, lines, _PAD, ' rx="6" fill="#eef4fb" stroke="#3e6fa8"')
        return rect + self._text(lines, *self._at(middle))

    def _label(self, way: Way, lines: list[str]) -> str:
        assert way.label is not None  # noqa: S101  (asked of labelled ways only)
        return self._rect(way.label, lines, 2, ' fill="#ffffff"') + self._text(lines, *self._at(way.label))

    def _rect(self, middle: Point, lines: list[str], pad: float, look: str) -> str:
        (x, y), (width, height) = self._at(middle), _extent(lines)
        width, height = width + 2 * pad, height + 2 * pad
        place = f'x="{_n(x - width / 2)}" y="{_n(y - height / 2)}" width="{_n(width)}" height="{_n(height)}"'
        return f"<rect {place}{look}/>"

    def _text(self, lines: list[str], x: float, y: float, look: str = "") -> str:
        first = y - _LINE * (len(lines) - 1) / 2 + 4.5
        spans = "".join(
            f'<tspan x="{_n(x)}" y="{_n(first + _LINE * at)}">{_escaped(line)}</tspan>' for at, line in enumerate(lines)
        )
        return f"<text{look}>{spans}</text>"

    def _arrow(self, way: Way) -> str:
        points = list(way.points)
        head = points[0] if way.backwards else points[-1]
        # The line ends inside its head, so that it does not show beside the tip.
        short = Point(head.across, head.along + (_HEAD - 1 if way.backwards else 1 - _HEAD))
        points[0 if way.backwards else -1] = short
        line = [f"M{self._pair(points[0])}"]
        for at, (one, other) in enumerate(pairwise(points)):
            line.append(self._curve(one, other) if at % 2 else f"L{self._pair(other)}")
        drawn = f'<path d="{"".join(line)}" fill="none" stroke="#52606d" stroke-width="1.3"/>'
        back = head.along + (_HEAD if way.backwards else -_HEAD)
        wings = [Point(head.across - _HEAD / 2, back), Point(head.across + _HEAD / 2, back)]
        tip = " ".join(self._pair(point) for point in (head, *wings))
        return f'{drawn}<polygon points="{tip}" fill="#52606d"/>'

    def _curve(self, one: Point, other: Point) -> str:
        half = (one.along + other.along) / 2
        bends = Point(one.across, half), Point(other.across, half)
        return f"C{self._pair(bends[0])} {self._pair(bends[1])} {self._pair(other)}"

    def _at(self, point: Point) -> tuple[float, float]:
        x, y = (point.across, point.along) if self._down else (point.along, point.across)
        return x + self._left, y + self._top

    def _pair(self, point: Point) -> str:
        x, y = self._at(point)
        return f"{_n(x)},{_n(y)}"

    def _sides(self, size: Size) -> tuple[float, float]:
        return (size.across, size.along) if self._down else (size.along, size.across)


def _size(lines: list[str], *, down: bool, pad: float = _PAD) -> Size:
    width, height = _extent(lines)
    width, height = width + 2 * pad, height + 2 * pad
    return Size(width, height) if down else Size(height, width)


def _extent(lines: list[str]) -> tuple[float, float]:
    """Return width and height of lines of text, estimated: the fonts of whoever looks are not known."""
    return max(map(_wide, lines), default=0) * _CHAR, len(lines) * _LINE


def _wide(text: str) -> int:
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _lines(text: str, most: int) -> list[str]:
    """Break a text into lines at most so wide; a word that is wider is broken anywhere."""
    lines: list[str] = []
    for word in text.split():
        if lines and _wide(lines[-1]) + 1 + _wide(word) <= most:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for char in word:
            if _wide(lines[-1]) + _char_width(char) > most:
                lines.append("")
            lines[-1] += char
    return lines


def _n(number: float) -> str:
    """Return a number with one decimal at most."""
    return f"{number:.1f}".removesuffix(".0")


def _escaped(text: str) -> str:
    return escape(text, {'"': "&quot;"})
