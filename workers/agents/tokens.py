"""How many tokens a message takes, safely, where no server counts; and a message cut to fit."""

import re
from collections.abc import Callable
from typing import Final, TypeAlias

Count: TypeAlias = Callable[[str], int]
"""Returns the tokens of one message with its place in the template, or an upper estimate."""

PER_MESSAGE: Final = 8
"""Tokens of the template around a message: role, control tokens, line ends, and its part of the answer's opening."""

_WORD: Final = re.compile(r"[A-Za-z]+")
_PLAIN: Final = re.compile(r"[A-Z]?[a-z]{0,15}|[A-Z]{1,6}")
_TAKEN_ALONG: Final = re.compile(r" (?=[A-Za-z])")
_GAP: Final = "\n[…]\n"


def estimated_tokens(text: str) -> int:
    """Return an upper estimate of a message's tokens for the byte-pair tokenizers of the models we use.

    Three letters a token in ordinary words and hardly more than one in others (keys, base64), a token for each digit,
    mark and white space but the one a word takes along, one to three for each character outside ASCII.
    """
    words = sum(_of_word(word) for word in _WORD.findall(text))
    rest = _WORD.sub("", text)
    return words + len(rest.encode(errors="replace")) - _uncounted(rest) - len(_TAKEN_ALONG.findall(text)) + PER_MESSAGE


def clipped(text: str, room: int, count: Count) -> str:
    """Return `text`, or its beginning and end with a gap between them, so that it takes at most `room` tokens."""
    if count(text) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count(_ends(text, middle)) <= room:
            low = middle
        else:
            high = middle - 1
    return _ends(text, low)


def _ends(text: str, kept: int) -> str:
    tail = kept // 3
    return text[: kept - tail] + _GAP + (text[-tail:] if tail else "")


def _of_word(word: str) -> int:
    return -(-len(word) // 3) if _PLAIN.fullmatch(word) else -(-len(word) * 2 // 3)


def _uncounted(rest: str) -> int:
    """Return the bytes outside ASCII that no token is counted for: one of each character."""
    return sum(char > "\x7f" for char in rest)
