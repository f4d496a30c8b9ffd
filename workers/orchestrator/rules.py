"""Rules over the message and the conversation: what decides when nothing cleverer is configured, or it is down."""

from typing import Final

from infra.postgres.inbox import Prepared
from schemas.agents import Agent
from schemas.guardrail_policy import AbusePolicy
from workers.orchestrator.finding import MAX_READ, Finding
from workers.orchestrator.repeats import repeated
from workers.orchestrator.risks import risk_of
from workers.orchestrator.signals import phase_of, signals_of
from workers.orchestrator.words import digest, pattern

VERSION: Final = 2

_MATERIAL: Final = pattern("material")
_PROBLEM: Final = pattern("problem")
_TECHNICAL: Final = pattern("technical")

_SURE: Final = 0.8
_MISSED: Final = 0.45
"""Of the default agent: nothing matched, and most messages that match nothing are its."""


class RuleRouter:
    """Decides by rules; never fails, and says all that the deterministic checks find."""

    name = f"rules-{VERSION}-{digest()}"

    def __init__(self, default: Agent = Agent.DISCOVERY, *, abuse: AbusePolicy | None = None) -> None:
        self._default = default
        self._abuse = abuse

    async def find(self, turn: Prepared, *, within: float) -> Finding:
        """Return what the rules say of the turn."""
        return self.judge(turn)

    def judge(self, turn: Prepared) -> Finding:
        """Return what the rules say of the turn, without waiting."""
        text = turn.text[:MAX_READ].lower()
        problem = _PROBLEM.search(text) is not None
        signals = signals_of(turn.text)
        repeats = repeated(turn)
        agent, why, intent, confidence = self._decide(text, problem=problem, repeats=repeats)
        return Finding(
            agent=agent,
            why=why,
            intent=intent,
            confidence=confidence,
            router=self.name,
            phase=phase_of(turn, signals, problem=problem),
            signals=signals,
            repeats=repeats,
            risk=risk_of(turn, self._abuse),
            problem=problem,
        )

    def _decide(self, text: str, *, problem: bool, repeats: int | None) -> tuple[Agent, str, str, float]:
        """Return agent, reason, intent and confidence; the first rule that matches decides."""
        if repeats is not None:
            return Agent.ADAPTIVE_RESPONSE, "asks again what was answered", "repeat", _SURE
        if _MATERIAL.search(text):
            return Agent.CONTENT_GENERATOR, "asks for material", "material", _SURE
        if problem:
            return Agent.SUPPORT, "reports a problem", "problem", _SURE
        if _TECHNICAL.search(text):
            return Agent.TECHNICAL_CONSULTANT, "asks how it is built or connected", "technical", _SURE
        return self._default, "needs are not known yet", "", _MISSED
