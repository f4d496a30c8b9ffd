"""The labelled utterances: templates expanded in a fixed order, those worded one by one, and those held out."""

import hashlib
import re
from collections import Counter
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

_BEFORE: Final = {
    "asked": (Agent.DISCOVERY, True),
    "support": (Agent.SUPPORT, False),
    "technical": (Agent.TECHNICAL_CONSULTANT, False),
    "content": (Agent.CONTENT_GENERATOR, False),
}
"""What may stand in front of a message: who answered before it, and whether that answer ended with a question."""

_IN_TURN: Final = tuple(_BEFORE.values())

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
    by: Agent = Agent.DISCOVERY
    """Who answered that."""
    open: bool = False
    """Whether that answer ended with a question."""
    place: int = 0
    """Which of its agent's messages it is; those that say the same in different languages mostly share it."""

    def turn(self) -> Prepared:
        """Return it as the orchestrator meets it."""
        html = "<p>An answer?</p>" if self.open else "<p>An answer.</p>"
        past = () if self.asked is None else (PastTurn(self.asked, html, self.by, seq=1),)
        return Prepared(
            turn_id=TurnId("00000000-0000-0000-0000-000000000000"), tenant="training", conversation_id="training",
            seq=len(past) + 1, epoch=1, text=self.text, channel="api", past=past, brought=(), traceparent=None,
        )  # fmt: skip


def templated() -> list[Utterance]:
    """Return the templates, expanded: every language, every agent; some follow an earlier message, some repeat one."""
    found: list[Utterance] = []
    for language in LANGUAGES:
        plain = [*_read(language, stride=1), *_read(f"words_{language}", stride=TIMES)]
        found += _placed(plain, language)
        for agent, text in plain[::4]:
            if agent is not Agent.ADAPTIVE_RESPONSE and len(text.split()) > 4:
                found.append(Utterance(text, Agent.ADAPTIVE_RESPONSE, language, text))
    return found


def loose() -> list[Utterance]:
    """Return what is worded one by one, and trained on."""
    written: dict[str, dict[str, list[str]]] = yaml.safe_load(_bytes("loose.yaml"))
    return [row for language, agents in written.items() for row in _placed(_lines(agents), language)]


def situations() -> list[Utterance]:
    """Return what is worded one by one and says itself what came before it, where that matters; trained on."""
    found: list[Utterance] = []
    for language in LANGUAGES:
        written: dict[str, list[str]] = yaml.safe_load(_bytes(f"situations_{language}.yaml"))
        found += _placed(_lines(written), language)
    return found


def held_out() -> list[Utterance]:
    """Return what is never trained on, in other words than all that is."""
    found: list[Utterance] = []
    for language, agents in yaml.safe_load(_bytes("held_out.yaml")).items():
        for agent, texts in agents.items():
            for text in texts:
                if text.startswith(_AGAIN):
                    again = text.removeprefix(_AGAIN)
                    found.append(Utterance(again, Agent(agent), language, again))
                else:
                    past = texts[0].removeprefix(_AGAIN) if agent == Agent.ADAPTIVE_RESPONSE else None
                    found.append(Utterance(text, Agent(agent), language, past))
    return found


def _lines(agents: dict[str, list[str]]) -> list[tuple[Agent, str]]:
    return [(Agent(agent), text) for agent, texts in agents.items() for text in texts]


def _placed(lines: list[tuple[Agent, str]], language: str) -> list[Utterance]:
    """Return messages of one language with what came before each.

    Who complains of an answer has had one. Of the others every second one follows an answer, of each agent in turn, so
    that having a past says nothing by itself; but some say themselves what they follow.
    """
    found: list[Utterance] = []
    places: Counter[Agent] = Counter()
    for number, (agent, line) in enumerate(lines):
        named, _, text = line.partition(": ") if line.partition(": ")[0] in _BEFORE else ("", "", line)
        earlier = lines[(number * 7 + 11) % len(lines)][1].rpartition(": ")[2]
        if named or agent is Agent.ADAPTIVE_RESPONSE or number % 2:
            by, open_ = _BEFORE[named] if named else _IN_TURN[number // 2 % len(_IN_TURN)]
            found.append(Utterance(text, agent, language, earlier, by, open_, places[agent]))
        else:
            found.append(Utterance(text, agent, language, place=places[agent]))
        places[agent] += 1
    return found


def digest() -> str:
    """Return the hash of everything that is trained on."""
    rows = (*templated(), *loose(), *situations())
    written = "\n".join(f"{u.language}\t{u.agent}\t{u.asked or ''}\t{u.by}\t{u.open}\t{u.text}" for u in rows)
    return hashlib.sha256(written.encode()).hexdigest()


def _read(name: str, *, stride: int) -> list[tuple[Agent, str]]:
    """Return the expanded templates of a file; each begins `stride` fillers further on than the one before it."""
    templates = _Templates.model_validate(yaml.safe_load(_bytes(f"{name}.yaml")))
    number = count(step=stride)
    return [
        (agent, text)
        for agent in ANSWERING
        for line in templates.agents[agent]
        for text in _expanded(line, templates.slots, next(number))
    ]


def _expanded(line: str, slots: dict[str, list[str]], start: int) -> list[str]:
    """Fill a template's slots: each filler in its turn, from `start` on."""
    names = _SLOT.findall(line)
    if not names:
        return [line]
    times = min(TIMES, max(len(slots[name]) for name in names))
    texts: list[str] = []
    for time in range(times):
        values = {
            name: slots[name][(start + time * (1 + _STEP * place)) % len(slots[name])]
            for place, name in enumerate(dict.fromkeys(names))
        }
        texts.append(_SLOT.sub(lambda found, values=values: values[found[1]], line))
    return list(dict.fromkeys(texts))


def _bytes(name: str) -> bytes:
    return resources.files("training.router").joinpath(name).read_bytes()
