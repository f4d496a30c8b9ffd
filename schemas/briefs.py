"""What is known about a turn before its agent answers: the orchestrator's findings, kept with the plan."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.knowledge import Retrieved

Share = Annotated[float, Field(ge=0, le=1)]


class BuyingPhase(StrEnum):
    """Where the conversation stands."""

    OPENING = "opening"
    DISCOVERY = "discovery"
    EVALUATION = "evaluation"
    DECISION = "decision"
    CUSTOMER = "customer"
    """Somebody who has bought already and needs help."""


class SignalKind(StrEnum):
    """What shows that somebody is about to buy."""

    COMPETITOR = "competitor"
    TIMELINE = "timeline"
    BUDGET = "budget"
    REFERENCES = "references"
    """Asks who else uses it."""


class Risk(StrEnum):
    """Why a message needs more care than others."""

    NONE = "none"
    LEGAL = "legal"
    PRICE_COMMITMENT = "price_commitment"
    INVOICE = "invoice"
    ABUSE = "abuse"
    SPAM = "spam"
    INJECTION = "injection"
    """Tries to give the model orders."""

    @property
    def frontier_only(self) -> bool:
        """Tell whether the fine-tuned model may not answer."""
        return self in (Risk.LEGAL, Risk.PRICE_COMMITMENT, Risk.INVOICE)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BuyingSignal(_Frozen):
    """A buying signal, and the visitor's words that show it."""

    kind: SignalKind
    quote: Annotated[str, Field(max_length=200)] = ""


class Fact(_Frozen):
    """Something learnt about the buyer, with where it was learnt."""

    dimension: Annotated[str, Field(max_length=64)]
    """Of the taxonomy of pain points."""
    value: Annotated[str, Field(max_length=500)]
    """In the visitor's own words; untrusted."""
    seq: Annotated[int, Field(ge=1)]
    """The turn of the conversation it comes from."""
    confidence: Share
    by: Annotated[str, Field(max_length=64)] = "rules"
    """Who found it, with its version."""


class Brief(_Frozen):
    """What the agent is told beside the conversation itself."""

    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] = "en"
    phase: BuyingPhase = BuyingPhase.DISCOVERY
    intent: Annotated[str, Field(max_length=64)] = ""
    signals: tuple[BuyingSignal, ...] = ()
    repeats: int | None = None
    """The turn whose question is asked again."""
    risk: Risk = Risk.NONE
    confidence: Share = 0.0
    """Of the route."""
    router: Annotated[str, Field(max_length=120)] = "rules"
    """Who decided, with its version."""
    facts: tuple[Fact, ...] = ()
    """Known of this buyer, the latest of each dimension, this message included."""
    retrieved: Retrieved = Retrieved()


NO_BRIEF = Brief()
"""Of a turn whose orchestrator found out nothing."""
