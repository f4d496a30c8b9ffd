"""What a message tells about its buyer, found by rules: no model, no I/O, the same for the same message."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from infra.postgres.inbox import PastTurn, Prepared
from schemas.agents import Agent
from schemas.briefs import Fact
from workers.agents.discovery.taxonomy import Taxonomy, taxonomy

TOLD: Final = 0.6
"""Confidence of what a pattern found in a message."""
REPLIED: Final = 0.7
"""Of the reply to the question about it."""
BOTH: Final = 0.9
"""Of a reply that the dimension's own pattern finds too."""
EVADED: Final = 0.1
"""Of a reply that tells nothing: it is not known, but it has been asked."""

_MOST: Final = 500
_SENTENCES: Final = re.compile(r"[^.!?\n]+(?:[.,]\d[^.!?\n]*)*[.!?]*")
_EVASIONS: Final = re.compile(
    r"\W*(?:(?:i |we )?(?:don['’]?t know|do not know|can['’]?t say|would rather not(?: say)?|no idea|not sure(?: yet)?)"
    r"|yes|no|yeah|yep|nope|ok(?:ay)?|sure|fine|maybe|hm+|thanks?(?: you)?|good|great|hello|hi|later|next|skip|pass"
    r"|ja|nein|vielleicht|(?:das )?wei(?:ß|ss) ich nicht|keine ahnung|danke|gut"
    r"|oui|non|peut-être|je ne sais pas|aucune idée|merci|d['’]accord"
    r"|s[íi]|quizás|no (?:lo )?sé|ni idea|gracias|vale"
    r"|forse|non (?:lo )?so|nessuna idea|grazie|va bene)\W*",
    re.IGNORECASE,
)


def facts_of(turn: Prepared, language: str) -> tuple[Fact, ...]:
    """Return all that is known once this turn has come in: the latest of each dimension, this message included.

    This is the one call of the orchestrator: its result is the brief's `facts`. What is new among them, those of this
    turn's own number, is written down in the statement that queues the turn.
    """
    learnt = learn(turn.text, turn.past, turn.facts, language, seq=turn.seq)
    latest = {fact.dimension: fact for fact in (*turn.facts, *learnt)}
    return tuple(sorted(latest.values(), key=lambda fact: (fact.seq, fact.dimension)))


def learn(text: str, past: Sequence[PastTurn], known: Iterable[Fact], language: str, *, seq: int) -> tuple[Fact, ...]:
    """Return what a message adds to what is known, in the visitor's own words.

    A reply to the dimension asked last is a fact about it; one that tells nothing is kept with `EVADED`, so that the
    question is not asked again. Words that tell of any other dimension are facts too. A weaker fact never takes the
    place of a stronger one.

    Args:
        text: the message.
        past: the turns before it, oldest first.
        known: the latest fact of each dimension so far.
        language: of the message, as two letters.
        seq: the message's number in its conversation.
    """
    data = taxonomy()
    found = _told(text, data, seq, language)
    asked = _asked_last(past, data)
    if asked is not None:
        found[asked] = _reply(text, asked, found.get(asked), data, seq, language)
    held = {fact.dimension: fact.confidence for fact in known}
    return tuple(fact for name, fact in found.items() if fact.confidence >= held.get(name, 0.0))


def _asked_last(past: Sequence[PastTurn], data: Taxonomy) -> str | None:
    if not past or past[-1].agent is not Agent.DISCOVERY:
        return None
    return past[-1].dimension if past[-1].dimension in data.dimensions else None


def _reply(text: str, asked: str, told: Fact | None, data: Taxonomy, seq: int, language: str) -> Fact:
    if told is not None:
        return told.model_copy(update={"confidence": BOTH})
    # A question back, a greeting or one word of consent answers nothing.
    evades = _EVASIONS.fullmatch(text) is not None or text.rstrip().endswith("?")
    return _fact(asked, text, EVADED if evades else REPLIED, data, seq, language)


def _told(text: str, data: Taxonomy, seq: int, language: str) -> dict[str, Fact]:
    found: dict[str, Fact] = {}
    for sentence in _SENTENCES.findall(text):
        if sentence.rstrip().endswith("?"):
            continue
        for name, dimension in data.dimensions.items():
            if name not in found and dimension.telling.search(sentence):
                found[name] = _fact(name, sentence, TOLD, data, seq, language)
    return found


def _fact(name: str, words: str, confidence: float, data: Taxonomy, seq: int, language: str) -> Fact:
    value = " ".join(words.split())[:_MOST]
    return Fact(dimension=name, value=value, seq=seq, confidence=confidence, by=f"{data.name} {language}")
