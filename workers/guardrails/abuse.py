"""Spam, abuse and orders to the model in what a visitor writes, judged without any model."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from schemas.briefs import Risk
from schemas.guardrail_policy import AbusePolicy
from workers.guardrails.wording import compiled, wording

_LINK: Final = re.compile(r"https?://|\bwww\.[a-z0-9-]+\.", re.IGNORECASE)
_SAME_SIGN: Final = re.compile(r"([^\s.\-_=*#])\1{19,}")
_WORD: Final = re.compile(r"\w+")
_INVISIBLE: Final = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff\U000e0000-\U000e007f]")
_TAGS: Final = re.compile("[\U000e0020-\U000e007e]{4,}")
"""Letters that no screen shows and every model reads."""

_LONG_ENOUGH: Final = 24
"""Words from which on repetition is looked for: `no no no no` is no spam."""
_DISTINCT: Final = 0.2
_REPEATED: Final = 3
_SHORT: Final = 12
_MOST_CHARS: Final = 16_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a message is, and why in a few words that hold none of the visitor's."""

    risk: Risk
    reason: str = ""


HARMLESS: Final = Judgement(Risk.NONE)


def judge(text: str, *, earlier: Sequence[str] = (), policy: AbusePolicy | None = None) -> Judgement:
    """Return what a message is: abuse before orders to the model before spam, or nothing of it.

    Args:
        text: as the visitor wrote it.
        earlier: the visitor's messages before it, in any order: the same one over and over is spam.
        policy: of the installation.
    """
    policy = policy or AbusePolicy()
    hidden = _TAGS.search(text) is not None
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text[:_MOST_CHARS]))
    for risk in (Risk.ABUSE, Risk.INJECTION, Risk.SPAM):
        if (language := _worded(plain, risk, policy)) is not None:
            return Judgement(risk, f"worded like {risk} ({language})")
        if risk is Risk.INJECTION and hidden:
            return Judgement(risk, "holds letters that no screen shows")
    return _flood(plain, earlier, policy) or HARMLESS


def _worded(text: str, risk: Risk, policy: AbusePolicy) -> str | None:
    """Return the language whose wording it has, `policy` for the installation's own."""
    for language, pattern in _patterns(risk.value):
        if pattern.search(text) is not None:
            return language
    own = compiled(policy.phrases.get(risk.value, ())) if risk.value in policy.phrases else None
    return "policy" if own is not None and own.search(text) is not None else None


def _flood(text: str, earlier: Sequence[str], policy: AbusePolicy) -> Judgement | None:
    if (links := len(_LINK.findall(text))) > policy.links:
        return Judgement(Risk.SPAM, f"{links} links")
    if _SAME_SIGN.search(text) is not None:
        return Judgement(Risk.SPAM, "the same sign over and over")
    words = _WORD.findall(text.casefold())
    if len(words) >= _LONG_ENOUGH and len(Counter(words)) < _DISTINCT * len(words):
        return Judgement(Risk.SPAM, "the same words over and over")
    same = sum(_WORD.findall(message.casefold()) == words for message in earlier)
    if len(text) >= _SHORT and same >= _REPEATED:
        return Judgement(Risk.SPAM, f"the same message {same + 1} times")
    return None


@cache
def _patterns(risk: str) -> list[tuple[str, re.Pattern[str]]]:
    languages = wording("abuse").languages
    found = [(language, compiled(kinds.get(risk, ()))) for language, kinds in languages.items()]
    return [(language, pattern) for language, pattern in found if pattern is not None]
