"""What is known beside a message's words, as features: what was answered before, what the rules found."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from infra.postgres.inbox import Prepared
from schemas.agents import Agent
from schemas.briefs import BuyingPhase, Risk, SignalKind
from workers.orchestrator.finding import Finding
from workers.orchestrator.repeats import says_so

_SHORT: Final = 3
_BRIEF: Final = 8
"""Words up to which a message likely goes on with what its predecessor's answer was about."""
_REPLY: Final = 12
"""Words up to which one that asks nothing likely answers a question of ours."""

_MARKUP: Final = re.compile(r"<[^>]*>")
_ASKS: Final = ("?", "？", "؟")


@dataclass(frozen=True)
class _Seen:
    """One turn with what the rules found, looked at by the features."""

    turn: Prepared
    rules: Finding

    @cached_property
    def words(self) -> int:
        return len(self.turn.text.split())

    @cached_property
    def asks(self) -> bool:
        return any(sign in self.turn.text for sign in _ASKS)

    @cached_property
    def last(self) -> tuple[str, Agent | None]:
        """The last answer, as text, and who gave it; of what a channel brought nobody knows who."""
        for past in reversed(self.turn.past):
            if past.shown_html:
                return _MARKUP.sub("", past.shown_html).rstrip(), past.agent
        said = (text.rstrip() for role, text in reversed(self.turn.brought) if role == "assistant")
        return next(said, ""), None

    @property
    def replies(self) -> bool:
        """Whether it may answer a question that we left open."""
        return self.last[0].endswith(_ASKS) and not self.asks and self.words <= _REPLY

    def follows(self, agent: Agent) -> bool:
        """Tell whether it may go on with what `agent` answered."""
        return self.last[1] is agent and self.words <= _BRIEF

    def signals(self, kind: SignalKind) -> bool:
        return any(signal.kind is kind for signal in self.rules.signals)


_FEATURES: Final[dict[str, Callable[[_Seen], bool]]] = {
    "repeats": lambda seen: seen.rules.repeats is not None,
    "says_so": lambda seen: says_so(seen.turn.text),
    "has_past": lambda seen: bool(seen.last[0]),
    "problem": lambda seen: seen.rules.problem,
    "material": lambda seen: seen.rules.intent == "material",
    "technical": lambda seen: seen.rules.intent == "technical",
    "customer": lambda seen: seen.rules.phase is BuyingPhase.CUSTOMER,
    "decision": lambda seen: seen.rules.phase is BuyingPhase.DECISION,
    "invoice": lambda seen: seen.rules.risk is Risk.INVOICE,
    "budget": lambda seen: seen.signals(SignalKind.BUDGET),
    "competitor": lambda seen: seen.signals(SignalKind.COMPETITOR),
    "timeline": lambda seen: seen.signals(SignalKind.TIMELINE),
    "references": lambda seen: seen.signals(SignalKind.REFERENCES),
    "asks": lambda seen: seen.asks,
    "short": lambda seen: seen.words <= _SHORT,
    "replies": lambda seen: seen.replies,
    "follows_support": lambda seen: seen.follows(Agent.SUPPORT),
    "follows_technical": lambda seen: seen.follows(Agent.TECHNICAL_CONSULTANT),
    "follows_content": lambda seen: seen.follows(Agent.CONTENT_GENERATOR),
}

STATE: Final = tuple(_FEATURES)
"""The names of the features, in their order; each is 0 or 1."""


def state_of(turn: Prepared, rules: Finding) -> tuple[float, ...]:
    """Return the features beside the text, in the order of `STATE`."""
    seen = _Seen(turn, rules)
    return tuple(float(feature(seen)) for feature in _FEATURES.values())
