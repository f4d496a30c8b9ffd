"""What was found where in a text."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What can be found; an installation's own patterns have names of their own."""

    SECRET = "secret"  # noqa: S105 - a kind of finding, not a secret
    EMAIL = "email"
    IBAN = "iban"
    CARD = "card"
    NATIONAL_ID = "national_id"
    PHONE = "phone"
    IP = "ip"
    PRIVATE_IP = "private_ip"
    """Of a network inside a house: says nothing about a person to the outside, and operators need it in logs."""
    ADDRESS = "address"
    NAME = "name"


STRUCTURED: Final = (Kind.SECRET, Kind.EMAIL, Kind.IBAN, Kind.CARD, Kind.NATIONAL_ID, Kind.PHONE, Kind.IP)
"""Kinds with a shape that can be checked. Names and streets have none: they are found by cues only."""

_WORDS: Final[Mapping[str, str]] = {Kind.NATIONAL_ID: "id number", Kind.PRIVATE_IP: "ip"}


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A piece of a text, from `start` up to `end`, and what it is."""

    start: int
    end: int
    kind: str

    def overlaps(self, other: "Span") -> bool:
        """Tell whether both have a character in common."""
        return self.start < other.end and other.start < self.end


def placeholder(kind: str, number: int = 1) -> str:
    """Return what stands for the `number`-th different value of a kind."""
    word = _WORDS.get(kind, kind)
    return f"[{word}]" if number == 1 else f"[{word} {number}]"


def without_overlaps(found: Iterable[Span]) -> list[Span]:
    """Return findings in the order of the text; where some overlap, the one that was found first."""
    kept: list[Span] = []
    for span in found:
        if span.start < span.end and not any(span.overlaps(other) for other in kept):
            kept.append(span)
    return sorted(kept)
