"""What discovery never says: nothing generic, no assistant's talk, no example of its prompt, no other language."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Final

from infra.postgres.claims import Claim
from schemas.agents import Agent
from workers.agents.artefact import artefact
from workers.agents.discovery.taxonomy import LANGUAGES, taxonomy
from workers.answers.guard import Check

_FEW: Final = 2
"""Words of one language alone, from which on a sentence is of that language."""

# Words that are frequent in one of the languages and none in the others.
_WORDS: Final[Mapping[str, frozenset[str]]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the and you your is are with what which how would this that of have our we to do does who when where",
        "de": "der das und sie ihr ihre ihnen ist sind mit welche welcher wie für haben wir nicht ein eine bei auf",
        "fr": "le les et vous votre vos est sont avec quel quelle comment pour nous dans cela aujourd'hui combien",
        "es": "el los y usted ustedes sus con qué cuál cuánto cómo para tienen hoy quién muy pero cuándo",
        "it": "il gli voi vostro vostra è che quale quanto avete della dello oggi chi molto quando nel siete",
    }.items()
}


def language_of(text: str) -> str | None:
    """Return the language of `text` where common words leave no doubt; None for short or mixed text."""
    words = set(re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text.lower()))
    counts = {language: len(words & known) for language, known in _WORDS.items()}
    first, second = sorted(counts.values(), reverse=True)[:2]
    if first < _FEW or second * 2 > first:
        return None
    return max(counts, key=lambda language: counts[language])


def discovery_checks(claim: Claim) -> tuple[Check, ...]:
    """Return the checks of one turn's answer, the quickest first."""
    wanted = _languages(claim)

    def other_language(text: str) -> str | None:
        found = language_of(text) if wanted else None
        return "language" if found is not None and found not in wanted else None

    return bleeds, says_nothing, echoes, other_language


def bleeds(text: str) -> str | None:
    """Find speech of an assistant or of a template."""
    return "bleed" if taxonomy().bleeding.search(text) else None


def says_nothing(text: str) -> str | None:
    """Find questions that ask for everything."""
    return "generic" if taxonomy().saying_nothing.search(text) else None


def echoes(text: str) -> str | None:
    """Find sentences of the prompt's own examples."""
    return "echo" if _folded(text) in _sentences_of_examples() else None


def _languages(claim: Claim) -> frozenset[str]:
    """Return the languages the answer may be in: the brief's, and the last that the visitor clearly wrote."""
    if claim.brief.language not in LANGUAGES:
        return frozenset()
    said = (claim.text, *(turn.asked for turn in reversed(claim.past)))
    clear = next((found for text in said if (found := language_of(text)) is not None), None)
    return frozenset({claim.brief.language} | ({clear} if clear else set()))


@cache
def _sentences_of_examples() -> frozenset[str]:
    examples = artefact(Agent.DISCOVERY).examples
    sentences = (part for example in examples for part in re.split(r"(?<=[.!?])\s+", example.answer))
    return frozenset(_folded(sentence) for sentence in sentences if len(sentence.split()) > _FEW)


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", re.sub(r"<[^>]*>", " ", text).casefold()))
