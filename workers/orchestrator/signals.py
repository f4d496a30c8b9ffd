"""What shows that somebody is about to buy, and where the conversation stands."""

import re
from typing import Final

from infra.postgres.inbox import Prepared
from schemas.agents import Agent
from schemas.briefs import BuyingPhase, BuyingSignal, SignalKind
from workers.orchestrator.finding import MAX_READ
from workers.orchestrator.words import pattern

_QUOTE: Final = 120
_BEFORE: Final = 40

_SIGNALS: Final = tuple((kind, pattern(f"signal_{kind}")) for kind in SignalKind)
_DECISION: Final = pattern("decision")
_CUSTOMER: Final = pattern("customer")


def signals_of(text: str) -> tuple[BuyingSignal, ...]:
    """Return each kind of buying signal in a message once, with the visitor's words around it."""
    text = text[:MAX_READ]
    lower = text.lower()
    found = ((kind, words.search(lower)) for kind, words in _SIGNALS)
    return tuple(BuyingSignal(kind=kind, quote=_around(text, match)) for kind, match in found if match is not None)


def phase_of(turn: Prepared, signals: tuple[BuyingSignal, ...], *, problem: bool) -> BuyingPhase:
    """Return where the conversation stands, by this message and by who has answered so far."""
    text = turn.text[:MAX_READ].lower()
    if problem or _CUSTOMER.search(text):
        return BuyingPhase.CUSTOMER
    if _DECISION.search(text):
        return BuyingPhase.DECISION
    consulted = any(past.agent is Agent.TECHNICAL_CONSULTANT for past in turn.past)
    if consulted or any(signal.kind is not SignalKind.TIMELINE for signal in signals):
        return BuyingPhase.EVALUATION
    return BuyingPhase.DISCOVERY if turn.past or turn.brought else BuyingPhase.OPENING


def _around(text: str, match: re.Match[str]) -> str:
    """Return the part of the message that a signal stands in, whole words only."""
    start, end = max(0, match.start() - _BEFORE), min(len(text), match.start() + _QUOTE - _BEFORE)
    if start:
        start = text.find(" ", start, match.start()) + 1 or match.start()
    return " ".join(text[start:end].split())
