"""Telephone numbers: any with a country's code, and national forms where their form or a cue shows it."""

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Final

from infra.redaction.rules import Cues, rules
from infra.redaction.spans import Kind, Span

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

_SEPARATOR: Final = r"[ \u00a0\u202f.\-/()–]"
_CANDIDATE: Final = re.compile(
    rf"(?<![\w.,:/+\-–=#])(?:\+ ?|\()?\d(?:{_SEPARATOR}{{0,3}}\d){{6,16}}(?![\w–-]|[.,:/]\d)"
)
_SEVEN_DIGITS: Final = re.compile(rf"\d(?:{_SEPARATOR}{{0,3}}\d){{6}}")
_DATE: Final = re.compile(
    r"(?:0?[1-9]|[12]\d|3[01])[./-](?:0?[1-9]|1[0-2])[./-](?:(?:19|20)\d\d\b|\d\d(?![./-]?\d))|"
    r"(?:19|20)\d\d[./-]\d{1,2}[./-]\d{1,2}"
)
_NORTH_AMERICAN: Final = re.compile(r"(?:1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}")
_TRUNK: Final = re.compile(r"\(?0\d")
_GROUPS: Final = re.compile(r"\d+")
_MOST_DIGITS: Final = 15


@cache
def _cue() -> Cues:
    return Cues(rules().phone_cues, within=36)


@cache
def _other() -> Cues:
    return Cues(rules().other_numbers, within=28)


def find(text: str) -> Iterator[Span]:
    """Yield telephone numbers. The library that knows every country's plan is asked about likely numbers only."""
    if _SEVEN_DIGITS.search(text) is None:
        return
    for match in _CANDIDATE.finditer(text):
        if _is_phone(match[0], text, match.start()):
            yield Span(*match.span(), Kind.PHONE)


def _is_phone(written: str, text: str, at: int) -> bool:
    groups = _GROUPS.findall(written)
    digits = "".join(groups)
    if len(digits) > _MOST_DIGITS or _DATE.match(written) is not None:
        return False
    if written.startswith("+"):
        return _possible(f"+{digits}", None)
    if digits.startswith("00"):
        return _valid(f"+{digits[2:]}", None) and not _other().before(text, at)
    if _other().before(text, at):
        return False
    if _cue().before(text, at):
        return any(_possible(digits, region) for region in rules().regions)
    if _NORTH_AMERICAN.fullmatch(written) is not None and _valid(digits, "US"):
        return True
    if _TRUNK.match(written) is None or len(groups) == 1 or len(groups[0]) == 1:
        return False
    return any(_valid(digits, region) for region in rules().regions if region != "US")


def _valid(digits: str, region: str | None) -> bool:
    """Tell whether a country gives out such numbers."""
    import phonenumbers  # here: 20 ms that a process pays with its first likely number

    number = _parsed(digits, region)
    return number is not None and phonenumbers.is_valid_number(number)


def _possible(digits: str, region: str | None) -> bool:
    """Tell whether a number has a length its country knows: enough where something else says what it is."""
    import phonenumbers

    number = _parsed(digits, region)
    return number is not None and phonenumbers.is_possible_number(number)


def _parsed(digits: str, region: str | None) -> "PhoneNumber | None":
    import phonenumbers

    try:
        return phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return None
