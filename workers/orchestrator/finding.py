"""What a router found out about a turn, and the port every router fills."""

from dataclasses import dataclass
from typing import Final, Protocol

from infra.postgres.inbox import Prepared
from schemas.agents import Agent
from schemas.briefs import BuyingPhase, BuyingSignal, Risk
from schemas.completions import ProviderError

MAX_READ: Final = 2_000
"""Characters of a message that routers look at: what it is about is said by then, and patterns take their time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Who should answer, and what the agent should know beside the conversation."""

    agent: Agent
    why: str
    """The reason, in words without the visitor's."""
    confidence: float
    router: str
    """Who decided, with its version."""
    phase: BuyingPhase
    intent: str = ""
    language: str | None = None
    """Of the message, where the router says so itself."""
    signals: tuple[BuyingSignal, ...] = ()
    repeats: int | None = None
    """Number of the turn whose question is asked again."""
    risk: Risk = Risk.NONE
    problem: bool = False
    """Whether the message's own words report something that does not work."""


class Router(Protocol):
    """Decides who answers. It sees untrusted text and never obeys it."""

    name: str
    """With its version."""

    async def find(self, turn: Prepared, *, within: float) -> Finding:
        """Return what was found, within so many seconds.

        Raises:
            NoFinding: it cannot say, for one of its reasons; the next router is asked.
        """
        ...


class NoFinding(Exception):
    """A router cannot say. `reason` is one of few words, for the metric."""

    def __init__(self, reason: str, *, router: str) -> None:
        super().__init__(f"the router {router} could not decide: {reason}")
        self.reason = reason

    @classmethod
    def of(cls, error: ProviderError, *, router: str) -> "NoFinding":
        """Return how a failed model call ends a router's work."""
        return cls(error.code, router=router)
