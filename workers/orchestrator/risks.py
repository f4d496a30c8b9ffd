"""Why a message needs more care than others: deterministic checks, whichever router decides.

They look for the plain forms. What they miss meets the agents' own defences: delimited text, schemas, the sanitiser.
"""

import re
from collections import Counter
from typing import Final

from schemas.briefs import Risk
from workers.orchestrator.finding import MAX_READ
from workers.orchestrator.words import pattern

_INJECTION: Final = (
    pattern("injection"),
    # Marks by which chat templates tell roles apart: no visitor types them by accident.
    re.compile(
        r"<\|(?:im_start|im_end|system|assistant|endoftext)|\[/?INST\]|<</?SYS>>|^\s*(?:system|assistant)\s*:",
        re.IGNORECASE | re.MULTILINE,
    ),
)

_ABUSE: Final = pattern("abuse")
_SPAM: Final = pattern("spam")
_CARE: Final = tuple((risk, pattern(risk)) for risk in (Risk.INVOICE, Risk.LEGAL, Risk.PRICE_COMMITMENT))

_LINK: Final = re.compile(r"https?://|www\.", re.IGNORECASE)
_MOST_LINKS: Final = 4
_MOST_ALIKE: Final = 0.6
"""Share of one word from which a long message says nothing."""


def risk_of(text: str) -> Risk:
    """Return the gravest risk of a message; the order of the checks is that of their gravity."""
    text = text[:MAX_READ].lower()
    if any(marks.search(text) for marks in _INJECTION):
        return Risk.INJECTION
    if _ABUSE.search(text):
        return Risk.ABUSE
    if _spam(text):
        return Risk.SPAM
    return next((risk for risk, words in _CARE if words.search(text)), Risk.NONE)


def _spam(text: str) -> bool:
    """Tell advertising, heaps of links and the same again and again from a message."""
    if _SPAM.search(text) or len(_LINK.findall(text)) > _MOST_LINKS:
        return True
    words = re.findall(r"\w+", text.lower())
    if len(words) >= 12:
        [(_, most)] = Counter(words).most_common(1)
        return most > _MOST_ALIKE * len(words)
    return bool(re.search(r"(\S)\1{29,}", text))
