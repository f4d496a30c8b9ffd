"""What an answer without a model is made of: the turn itself, not the words of a prompt."""

from dataclasses import dataclass

from schemas.agents import Agent
from schemas.briefs import NO_BRIEF, Brief
from schemas.knowledge import Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A turn as the offline provider sees it. Everything in it is untrusted text."""

    agent: Agent
    text: str
    """What the visitor asks."""
    brief: Brief = NO_BRIEF
    passages: tuple[Passage, ...] = ()
    """What a model would be shown, in the order of their numbers."""
    asked: tuple[str, ...] = ()
    """Dimensions that earlier turns asked about."""
    told: tuple[str, ...] = ()
    """Earlier answers of the conversation, as plain text."""
