"""What an agent may not promise by itself: prices, discounts, dates, legal assurances, invoice numbers."""

import re
from collections.abc import Callable, Iterable
from functools import cache, cached_property
from typing import Final

from infra.postgres.claims import Claim
from schemas.guardrail_policy import Commitment, CommitmentPolicy
from workers.answers.guard import PROMISED
from workers.answers.sanitise import to_text
from workers.guardrails.wording import PARTS, Wording, compiled, wording

_SENTENCE: Final = re.compile(
    r"(?<=[.!?])(?<!\d\.)(?<!\bn\.)(?<!\bno\.)(?<!\bnr\.)\s+|\n+|,?\s(?:but|however|aber|jedoch|mais|pero)\s",
    re.IGNORECASE,
)
_FIGURE: Final = re.compile(
    rf"{PARTS['{money}']}|{PARTS['{percent}']}|{PARTS['{date}']}|{PARTS['{span}']}", re.IGNORECASE
)
_QUOTABLE: Final = frozenset({Commitment.PRICE, Commitment.DISCOUNT, Commitment.DELIVERY_DATE})
"""What may be repeated where a passage says it. A legal assurance and an invoice's number never may."""
_WORD: Final = re.compile(r"\w+")
_MAY_MATTER: Final = 4
_CURRENCIES: Final = {
    "€": ("€", "eur"),
    "$": ("$", "usd", "dollar", "dólar", "dollari"),
    "£": ("£", "gbp", "pound"),
    "chf": ("chf", "franken"),
    "¥": ("¥",),
}

_EVERYWHERE: Final = "en"
"""An answer that is not in the language it was asked for is in English most of the time."""


def problem(
    text: str,
    language: str,
    passages: Iterable[str] = (),
    policy: CommitmentPolicy | None = None,
) -> str | None:
    """Return what is promised in a text as a short code, `promised_price` for one, or None.

    Args:
        text: what an agent is about to say, plain or HTML.
        language: two letters; where there is no wording for it all of them are tried.
        passages: texts that were found for the turn: a figure that stands in one may be told.
        policy: what is prohibited here.
    """
    return _judged(text, language, _Quotable(passages), policy or CommitmentPolicy())


def commitment_check(claim: Claim, policy: CommitmentPolicy | None = None) -> Callable[[str], str | None]:
    """Return the check of one turn's answer, which may tell what its passages tell. It may be called often."""
    quotable = _Quotable(passage.text for passage in claim.brief.retrieved.passages)
    prohibited = policy or CommitmentPolicy()

    def check(text: str) -> str | None:
        return _judged(text, claim.brief.language, quotable, prohibited)

    return check


class _Quotable:
    """What may be told because a passage says it. Read at the first figure or offer: most answers have none."""

    def __init__(self, passages: Iterable[str]) -> None:
        self._passages = tuple(passages)

    @cached_property
    def _figures(self) -> set[str]:
        return {figure for passage in self._passages for figure in _figures(passage)}

    @cached_property
    def _words(self) -> tuple[str, ...]:
        return tuple(_words(passage) for passage in self._passages)

    def holds(self, sentence: str) -> bool:
        """Tell whether every figure of a sentence stands in a passage, and there is one, or all its words in a row."""
        figures = _figures(sentence)
        return (bool(figures) and figures <= self._figures) or any(_words(sentence) in said for said in self._words)


def _judged(text: str, language: str, quotable: _Quotable, policy: CommitmentPolicy) -> str | None:
    plain = to_text(text) if "<" in text or "&" in text else text
    for sentence in _SENTENCE.split(plain):
        if len(sentence) < _MAY_MATTER:
            continue
        for kind in _kinds_in(sentence, language, policy):
            if not (kind in _QUOTABLE and quotable.holds(sentence)):
                return f"{PROMISED}{kind}"
    return None


def _kinds_in(sentence: str, language: str, policy: CommitmentPolicy) -> Iterable[Commitment]:
    for kind in policy.prohibited:
        own = compiled(policy.phrases.get(kind, ()))
        if own is not None and own.search(sentence):
            yield kind
    for spoken in _languages(language):
        named = [kind for kind in policy.prohibited if _finds(spoken, kind, sentence)]
        if named and not _finds(spoken, "unless", sentence):
            yield from named


def _languages(language: str) -> list[str]:
    known = _wording().languages
    return list(dict.fromkeys((language, _EVERYWHERE))) if language in known else list(known)


def _words(text: str) -> str:
    """Return the words of a text, each between blanks, so that one text can be looked for in another."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _figures(text: str) -> set[str]:
    """Return amounts, percentages, dates and lengths of time as they can be compared: `49,00 €` is `€49`."""
    return {_comparable(match[0]) for match in _FIGURE.finditer(text)}


def _comparable(figure: str) -> str:
    whole = re.sub(r"[\s\u00a0']|[.,]+$", "", figure.casefold())
    currency = next((sign for sign, names in _CURRENCIES.items() if any(name in whole for name in names)), None)
    if currency is None:
        return whole
    amount = re.sub(r"[^\d.,]", "", whole).strip(".,")
    return currency + re.sub(r"[.,](?=\d{3}(?:\D|$))", "", re.sub(r"[.,](?:00|-+)$", "", amount)).replace(",", ".")


def _finds(language: str, kind: str, sentence: str) -> bool:
    pattern = _pattern(language, kind)
    return pattern is not None and pattern.search(sentence) is not None


@cache
def _wording() -> Wording:
    return wording("commitments")


@cache
def _pattern(language: str, kind: str) -> re.Pattern[str] | None:
    return compiled(_wording().languages[language].get(kind, ()))
