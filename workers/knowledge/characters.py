"""Bytes become text without surprises: no guessing of charsets, nothing invisible, one spelling for each character."""

import codecs
import re
import unicodedata
from typing import Final

from workers.knowledge.blocks import Unreadable

_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LATIN: Final = frozenset({"iso-8859-1", "iso8859-1", "latin-1", "latin1", "latin_1", "l1", "us-ascii", "ascii"})
"""Names under which, on the web, windows-1252 is meant."""

_LINE_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SPACES: Final = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_UNSEEN: Final = re.compile(
    "["
    "\x00-\x08\x0e-\x1f\x7f-\x9f"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff"
    "\ud800-\udfff\ue000-\uf8ff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff"
    "]"
)
"""Control characters, marks of direction, fillers, variation selectors, tags, lone surrogates and private use."""
_JOINERS: Final = re.compile(
    "(?<![^\x00-\u05ff\u1e00-\u2bff])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\u05ff\u1e00-\u2bff])"
)
"""Zero-width joiners where no script needs them: beside Latin, Greek, Cyrillic, digits, spaces and signs."""


def decoded(raw: bytes, charset: str | None = None) -> str:
    """Return the text of some bytes: by their mark, by the charset that is told, as UTF-8, or as windows-1252.

    The last is for files from before UTF-8; there every byte is a letter, so binary data is looked for first.

    Raises:
        Unreadable: a charset that nobody knows, bytes that do not fit the one that is told, or binary data.
    """
    for mark, name in _BOMS:
        if raw.startswith(mark):
            return _in(raw, name, told=True)
    if charset is not None and charset.lower() not in {"utf-8", "utf8"}:
        return _in(raw, "cp1252" if charset.lower() in _LATIN else charset, told=True)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if b"\0" in raw:
            raise Unreadable("It is no text: it has NUL bytes in it.") from None
        if charset is not None:
            raise Unreadable(f"It should be UTF-8 and is not: byte {error.start} does not fit.") from None
        return _in(raw, "cp1252", told=False)


def _in(raw: bytes, charset: str, *, told: bool) -> str:
    try:
        if not codecs.lookup(charset)._is_text_encoding:  # pyright: ignore[reportPrivateUsage]  rot13, zlib: no charsets
            raise LookupError(charset)
        return raw.decode(charset)
    except LookupError:
        raise Unreadable(f"It is in a charset that is not known here: {charset[:40]!r}.") from None
    except (UnicodeError, ValueError):
        raise Unreadable(
            f"It should be {charset[:40]} and is not."
            if told
            else "It is neither UTF-8 nor windows-1252: save it as UTF-8."
        ) from None


def visible(text: str) -> str:
    """Return a text in NFC without anything that a reader cannot see; line ends are `\\n`, spaces are spaces.

    Invisible characters carry orders to a model past whoever reads the page, and PostgreSQL refuses NUL.
    """
    text = _SPACES.sub(" ", _LINE_ENDS.sub("\n", text))
    text = unicodedata.normalize("NFC", _UNSEEN.sub("", text))
    return unicodedata.normalize("NFC", _JOINERS.sub("", text))
