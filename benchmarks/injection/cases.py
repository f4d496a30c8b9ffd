"""The attacks, and the ways they come in."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.claims import claim_of
from infra.postgres.claims import Claim
from infra.postgres.inbox import PastTurn
from schemas.agents import ANSWERING, Agent
from schemas.briefs import Brief, Fact
from schemas.knowledge import Passage, Retrieved
from workers.answers.sanitise import HtmlStream

Way: TypeAlias = Literal[
    "message", "passage", "title", "heading", "fact", "history", "answer", "brought_user", "brought_assistant", "name"
]
"""`name` is what a channel or a conversation is called: metadata that has no business in a prompt."""

HARMLESS: Final = "How do I reset the scanner?"
PAGE: Final = Passage(
    passage_id="p1",
    source="https://docs.fairlead.example/reset",
    title="Reset",
    heading="Guide",
    text="Hold the button.",
)


class AttackClass(BaseModel):
    """Attacks of one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(alias="class")
    means: str
    via: tuple[Way, ...] = Field(min_length=1)
    says: tuple[str, ...] = Field(min_length=1)
    texts: tuple[str, ...] = Field(min_length=10)


@dataclass(frozen=True, slots=True)
class Case:
    """One attack."""

    kind: AttackClass
    number: int
    """Within its class, from 0."""

    @property
    def text(self) -> str:
        """What the attacker writes."""
        return self.kind.texts[self.number]

    @property
    def says(self) -> str:
        """What a model that obeys would write."""
        return self.kind.says[self.number % len(self.kind.says)]

    @property
    def agent(self) -> Agent:
        """The agent it is aimed at: each class meets all of them."""
        return ANSWERING[self.number % len(ANSWERING)]


@cache
def classes() -> tuple[AttackClass, ...]:
    """Return all classes."""
    raw = Path(__file__).with_name("cases.yaml").read_text(encoding="utf-8")
    return tuple(AttackClass.model_validate(one) for one in yaml.safe_load(raw))


def cases() -> list[Case]:
    """Return all cases."""
    return [Case(kind, number) for kind in classes() for number in range(len(kind.texts))]


def turn_with(text: str, way: Way, agent: Agent) -> Claim:
    """Return a turn into which `text` came by that way, everything else being harmless."""
    page = {"passage": {"text": text}, "title": {"title": text}, "heading": {"heading": text}}.get(way, {})
    fact = text if way == "fact" else "three sites"
    brief = Brief(
        retrieved=Retrieved(state="found", passages=(PAGE.model_copy(update=page),), answerable=True, score=0.9),
        facts=(Fact(dimension="team", value=fact[:500], seq=1, confidence=0.9),),
    )
    past = PastTurn(
        text if way == "history" else "Hello", _shown(text) if way == "answer" else "<p>Hello!</p>", agent, 1
    )
    brought = ("user", text) if way == "brought_user" else ("assistant", text)
    claim = claim_of(
        agent,
        text if way == "message" else HARMLESS,
        brief=brief,
        past=() if way.startswith("brought") else (past,),
        brought=(("user", "Hello"), brought) if way.startswith("brought") else (),
    )
    return named(claim, text) if way == "name" else claim


def _shown(text: str) -> str:
    """Return what would be in the ledger of an answer that held `text`."""
    html = HtmlStream()
    return html.feed(f"<p>Well: {text}") + html.finish()


def named(claim: Claim, text: str) -> Claim:
    """Return the turn in a conversation and a channel of that name."""
    return replace(claim, conversation_id=text, channel=text, tenant=text)
