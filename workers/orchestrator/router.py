"""Which agent answers. Rules: what answers when nothing cleverer is configured or the cleverer thing is down."""

import re
from dataclasses import dataclass
from typing import Final

from infra.postgres.inbox import Prepared
from schemas.agents import Agent


@dataclass(frozen=True, slots=True)
class Route:
    """The agent, and the rule that chose it."""

    agent: Agent
    why: str


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})", re.IGNORECASE)


# In order: the first that matches decides.
_RULES: Final[tuple[tuple[Agent, str, re.Pattern[str]], ...]] = (
    (
        Agent.CONTENT_GENERATOR,
        "asks for material",
        _words(
            r"one[- ]?pager|flow ?chart|diagram|write (?:me )?(?:a|an|up)\b|draft (?:me )?(?:a|an)\b|"
            r"summari[sz]e (?:this|our)"
        ),
    ),
    (
        Agent.SUPPORT,
        "reports a problem",
        _words(
            r"not working|does ?n[o']t work|doesn.t|is broken|error|bug\b|crash|"
            r"can ?not (?:log|sign)|can.t (?:log|sign)|"
            r"reset (?:my|our) password|refund|cancel (?:my|our)|return an item|"
            r"my (?:order|account|invoice|subscription)"
        ),
    ),
    (
        Agent.TECHNICAL_CONSULTANT,
        "asks how it is built or connected",
        _words(
            r"api\b|apis\b|webhooks?|integrat|sso\b|saml|oauth|sdk\b|on[- ]prem|self[- ]host|architecture|latency|"
            r"data model|schema|migrat|encrypt|security review|soc ?2|gdpr"
        ),
    ),
)

_REPEATED: Final = 0.8
"""Share of common words from which two questions count as the same."""


class RuleRouter:
    """Routes by rules over the message and the conversation."""

    def __init__(self, default: Agent = Agent.DISCOVERY) -> None:
        self._default = default

    async def route(self, turn: Prepared) -> Route:
        """Return who answers; never fails."""
        if _repeats(turn):
            return Route(Agent.ADAPTIVE_RESPONSE, "asks again what was answered")
        for agent, why, pattern in _RULES:
            if pattern.search(turn.text):
                return Route(agent, why)
        return Route(self._default, "needs are not known yet")


def _repeats(turn: Prepared) -> bool:
    words = _significant(turn.text)
    if len(words) < 3:
        return False
    return any(
        len(words & earlier) >= _REPEATED * len(words | earlier)
        for earlier in (_significant(past.asked) for past in turn.past if past.shown_html)
    )


def _significant(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 2}
