"""What an SVG document of ours may hold. Everything else is refused, whoever wrote it."""

import re
from typing import Final
from xml.parsers import expat

from schemas.assets import MAX_ASSET_BYTES

MAX_SIDE: Final = 40_000
MAX_ELEMENTS: Final = 2_000

_NUMBER: Final = r"-?\d{1,5}(\.\d)?"
_PAIR: Final = f"{_NUMBER},{_NUMBER}"
_PLACE: Final = re.compile(_NUMBER)
_SIDE: Final = re.compile(r"\d{1,5}(\.\d)?")
_COLOUR: Final = re.compile(r"none|#[0-9a-f]{6}")
_RECT: Final = {
    "x": _PLACE,
    "y": _PLACE,
    "width": _SIDE,
    "height": _SIDE,
    "rx": _SIDE,
    "fill": _COLOUR,
    "stroke": _COLOUR,
}

ALLOWED: Final[dict[str, dict[str, re.Pattern[str]]]] = {
    "svg": {
        "xmlns": re.compile(r"http://www\.w3\.org/2000/svg"),
        "viewBox": re.compile(r"0 0 \d{1,5}(\.\d)? \d{1,5}(\.\d)?"),
        "width": _SIDE,
        "height": _SIDE,
        "role": re.compile("img"),
        "font-family": re.compile("[A-Za-z, -]{1,60}"),
        "font-size": _SIDE,
        "text-anchor": re.compile("middle"),
        "fill": _COLOUR,
    },
    "title": {},
    "rect": _RECT,
    "text": {"font-weight": re.compile("bold")},
    "tspan": {"x": _PLACE, "y": _PLACE},
    "path": {
        "d": re.compile(f"M{_PAIR}(L{_PAIR}|C{_PAIR} {_PAIR} {_PAIR})*+"),
        "fill": _COLOUR,
        "stroke": _COLOUR,
        "stroke-width": _SIDE,
    },
    "polygon": {"points": re.compile(f"{_PAIR}( {_PAIR}){{2}}"), "fill": _COLOUR},
}
"""Elements, their attributes, and what those may say. None of them refers to anything, runs or loads."""

_TEXTUAL: Final = frozenset({"title", "tspan"})
_INSIDE: Final = {"svg": "", "tspan": "text"}
"""What an element stands in, where that is not the root."""


class SvgRefused(ValueError):
    """The document holds something that no SVG of ours has. The message names it by place, not by its words."""


def check_svg(document: bytes) -> None:
    """Do nothing if the document keeps to the rules.

    Raises:
        SvgRefused: it does not.
    """
    if len(document) > MAX_ASSET_BYTES:
        raise SvgRefused(f"the drawing has {len(document)} bytes; {MAX_ASSET_BYTES} are the most")
    reader = _Reader()
    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    # Comments, instructions, declarations, CDATA marks and entities: whatever has no handler of its own.
    parser.DefaultHandler = reader.other
    try:
        parser.Parse(document, True)
    except expat.ExpatError as error:
        raise SvgRefused(f"line {error.lineno} is no XML") from None


class _Reader:
    def __init__(self) -> None:
        self._open: list[str] = []
        self._elements = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        allowed = ALLOWED.get(name)
        parent = self._open[-1] if self._open else ""
        if allowed is None or parent != _INSIDE.get(name, "svg"):
            raise self._refused("is not allowed there")
        if self._elements > MAX_ELEMENTS:
            raise self._refused("is one too many")
        for attribute, value in attributes.items():
            if attribute not in allowed or not allowed[attribute].fullmatch(value):
                raise self._refused("has an attribute that is not allowed")
        if name == "svg" and not {"xmlns", "viewBox", "width", "height"} <= attributes.keys():
            raise self._refused("lacks its namespace or its size")
        if any(float(attributes[side]) > MAX_SIDE for side in ("width", "height") if side in attributes):
            raise self._refused(f"is larger than {MAX_SIDE} pixels")
        self._open.append(name)

    def end(self, _: str) -> None:
        self._open.pop()

    def text(self, text: str) -> None:
        if text.strip() and self._open[-1] not in _TEXTUAL:
            raise self._refused("is followed by text where none belongs")

    def other(self, text: str) -> None:
        if text.strip():
            raise self._refused("is followed by something that is neither element nor text")

    def _refused(self, what: str) -> SvgRefused:
        return SvgRefused(f"element {self._elements} {what}")
