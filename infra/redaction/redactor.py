"""A text in, the same text without personal data out."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from infra.redaction import contacts, numbers, people, phones, secrets
from infra.redaction.spans import Kind, Span, placeholder, without_overlaps
from schemas.guardrail_policy import RedactionPolicy

Finder = Callable[[str], Iterator[Span]]

_MOST_PASSES: Final = 4
"""Values that touch each other hide one another's ends; what a placeholder uncovers is found by the next pass."""

_DIGIT: Final = re.compile(r"\d")

_FINDERS: Final[tuple[tuple[Finder, frozenset[Kind], bool], ...]] = (
    (secrets.find, frozenset({Kind.SECRET}), False),
    (contacts.emails, frozenset({Kind.EMAIL}), False),
    (numbers.ibans, frozenset({Kind.IBAN}), True),
    (numbers.cards, frozenset({Kind.CARD}), True),
    (numbers.identities, frozenset({Kind.NATIONAL_ID}), True),
    (phones.find, frozenset({Kind.PHONE}), True),
    (contacts.ips, frozenset({Kind.IP, Kind.PRIVATE_IP}), True),
    (people.streets, frozenset({Kind.ADDRESS}), True),
    (people.names, frozenset({Kind.NAME}), False),
)
"""Who finds what, and whether a text without a digit can have it. Of findings that overlap the first one stays."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text with placeholders, and how much of what was replaced."""

    text: str
    counts: Mapping[str, int]


class Redactor:
    """Finds what a policy wants found. Never changes; one for a process is enough."""

    def __init__(self, *, policy: RedactionPolicy | None = None, without: Collection[str] = ()) -> None:
        policy = policy or RedactionPolicy()
        self._unwanted = frozenset(without) | frozenset(policy.keep)
        self._finders = [(find, needs_digit) for find, kinds, needs_digit in _FINDERS if not kinds <= self._unwanted]
        self._own = [(name, re.compile(pattern)) for name, pattern in policy.patterns.items()]

    @property
    def has_own(self) -> bool:
        """Tell whether the installation has patterns of its own, which may find anything."""
        return bool(self._own)

    def spans(self, text: str) -> list[Span]:
        """Return everything found, in order, without overlaps."""
        return without_overlaps(self._found(text))

    def clean(self, text: str) -> str:
        """Return `text` with a placeholder for everything found."""
        return self.redact(text).text

    def redact(self, text: str) -> Redacted:
        """Return the text and what was replaced in it: for training data, where the counts are part of the record."""
        counts = Counter[str]()
        for _ in range(_MOST_PASSES):
            if not (found := self.spans(text)):
                break
            counts.update(span.kind for span in found)
            text = _replaced(text, found)
        return Redacted(text, dict(counts))

    def _found(self, text: str) -> Iterator[Span]:
        for name, pattern in self._own:
            for match in pattern.finditer(text):
                yield Span(*match.span(), name)
        has_digit = _DIGIT.search(text) is not None
        for find, needs_digit in self._finders:
            if has_digit or not needs_digit:
                yield from (span for span in find(text) if span.kind not in self._unwanted)


def _replaced(text: str, found: list[Span]) -> str:
    """Put placeholders in; the same value has the same one throughout the text."""
    numbers_of: dict[str, dict[str, int]] = {}
    parts: list[str] = []
    at = 0
    for span in found:
        known = numbers_of.setdefault(span.kind, {})
        value = re.sub(r"[\s.\-()/]", "", text[span.start : span.end]).casefold()
        parts += (text[at : span.start], placeholder(span.kind, known.setdefault(value, len(known) + 1)))
        at = span.end
    return "".join([*parts, text[at:]])
