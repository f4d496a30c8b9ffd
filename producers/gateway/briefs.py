"""What was found out about a turn, with no word of visitors or documents: sources for all, the rest for operators."""

from typing import Self

from pydantic import BaseModel

from schemas.briefs import Brief, BuyingPhase, Risk, SignalKind
from schemas.knowledge import RetrievalState


class CitedSource(BaseModel):
    """One source of an answer."""

    number: int
    """As in the answer's text."""
    name: str
    url: str | None
    """Where it can be read; null for what has no public address."""


class PassageRead(BaseModel):
    """One passage that was found for the turn."""

    source: str
    heading: str
    score: float


class Retrieval(BaseModel):
    """What the knowledge base had for the turn."""

    state: RetrievalState
    answerable: bool
    score: float
    """How sure that is."""
    snapshot: str | None
    """The version of the knowledge base that was read."""
    passages: list[PassageRead]


class Findings(BaseModel):
    """What was found out, by whom, under which policy."""

    router: str
    """Who decided, with its version."""
    confidence: float
    policy: int | None
    """Version of the policy."""
    language: str
    phase: BuyingPhase
    intent: str
    signals: list[SignalKind]
    """Kinds of buying signals; the words that show them are the visitor's."""
    repeats: int | None
    """Number of the turn whose question is asked again."""
    risk: Risk
    retrieved: Retrieval

    @classmethod
    def of(cls, brief: Brief, policy: int | None) -> Self:
        """Return a brief as operators may see it."""
        found = brief.retrieved
        return cls(
            router=brief.router,
            confidence=brief.confidence,
            policy=policy,
            language=brief.language,
            phase=brief.phase,
            intent=brief.intent,
            signals=[signal.kind for signal in brief.signals],
            repeats=brief.repeats,
            risk=brief.risk,
            retrieved=Retrieval(
                state=found.state,
                answerable=found.answerable,
                score=found.score,
                snapshot=found.snapshot,
                passages=[
                    PassageRead(source=passage.source, heading=passage.heading, score=passage.score)
                    for passage in found.passages
                ],
            ),
        )
