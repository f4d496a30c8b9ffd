"""The labelled utterances: templates expanded in a fixed order, and those held out."""

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from itertools import count
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict

from infra.postgres.inbox import PastTurn, Prepared
from schemas.agents import ANSWERING, Agent
from schemas.ids import TurnId

LANGUAGES: Final = ("en", "de", "fr", "es", "it")
TIMES: Final = 8
"""How often a template with slots is filled, at most; one without stands for itself."""

_SLOT: Final = re.compile(r"\{(\w+)\}")
_AGAIN: Final = "again: "
_STEP: Final = 3
"""How far each further slot of a template runs ahead, so that the same pairs do not always meet."""


class _Templates(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    slots: dict[str, list[str]]
    agents: dict[Agent, list[str]]


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a visitor writes, and who should answer."""

    text: str
    agent: Agent
    language: str
    asked: str | None = None
    """An earlier message of the conversation, which was answered."""

    def turn(self) -> Prepared:
        """Return it as the orchestrator meets it."""
        past = () if self.asked is None else (PastTurn(self.asked, "<p>An answer.</p>", Agent.DISCOVERY, seq=1),)
        return Prepared(
            turn_id=TurnId("00000000-0000-0000-0000-000000000000"), tenant="training", conversation_id="training",
            seq=len(past) + 1, epoch=1, text=self.text, channel="api", past=past, brought=(), traceparent=None,
        )  # fmt: skip


def templated() -> list[Utterance]:
    """Return the templates, expanded: every language, every agent; some follow an earlier message, some repeat one.

    Who complains of an answer has had one; so has who asks again. Of the others every second one has a past, so that
    having one says nothing by itself.
    """
    found: list[Utterance] = []
    for language in LANGUAGES:
        plain = [(agent, text) for agent, texts in _read(language).items() for text in texts]
        for place, (agent, text) in enumerate(plain):
            earlier = plain[(place * 7 + 11) % len(plain)][1]
            past = earlier if agent is Agent.ADAPTIVE_RESPONSE or place % 2 else None
            found.append(Utterance(text, agent, language, past))
            if place % 4 == 0 and agent is not Agent.ADAPTIVE_RESPONSE and len(text.split()) > 4:
                found.append(Utterance(text, Agent.ADAPTIVE_RESPONSE, language, text))
    return found


def held_out() -> list[Utterance]:
    """Return what is never trained on, in other words than all that is."""
    return _worded("held_out.yaml")


def loose() -> list[Utterance]:
    """Return what is worded one by one, and trained on."""
    return _worded("loose.yaml")


def _worded(name: str) -> list[Utterance]:
    found: list[Utterance] = []
    for language, agents in yaml.safe_load(_bytes(name)).items():
        for agent, texts in agents.items():
            for text in texts:
                if text.startswith(_AGAIN):
                    again = text.removeprefix(_AGAIN)
                    found.append(Utterance(again, Agent(agent), language, again))
                else:
                    past = texts[0].removeprefix(_AGAIN) if agent == Agent.ADAPTIVE_RESPONSE else None
                    found.append(Utterance(text, Agent(agent), language, past))
    return found


def digest() -> str:
    """Return the hash of everything that is trained on."""
    written = "\n".join(f"{u.language}\t{u.agent}\t{u.asked or ''}\t{u.text}" for u in (*templated(), *loose()))
    return hashlib.sha256(written.encode()).hexdigest()


def _read(language: str) -> dict[Agent, list[str]]:
    templates = _Templates.model_validate(yaml.safe_load(_bytes(f"{language}.yaml")))
    number = count()
    return {
        agent: [text for line in templates.agents[agent] for text in _expanded(line, templates.slots, next(number))]
        for agent in ANSWERING
    }


def _expanded(line: str, slots: dict[str, list[str]], number: int) -> list[str]:
    """Fill a template's slots: each filler in its turn, from another one on for each template."""
    names = _SLOT.findall(line)
    if not names:
        return [line]
    times = min(TIMES, max(len(slots[name]) for name in names))
    texts: list[str] = []
    for time in range(times):
        values = {
            name: slots[name][(number + time * (1 + _STEP * place)) % len(slots[name])]
            for place, name in enumerate(dict.fromkeys(names))
        }
        texts.append(_SLOT.sub(lambda found, values=values: values[found[1]], line))
    return list(dict.fromkeys(texts))


def _bytes(name: str) -> bytes:
    return resources.files("training.router").joinpath(name).read_bytes()
