"""The sample dialogues, and which reply suits a question."""

import functools
import re
import zlib
from importlib import resources
from typing import Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict

Voice: TypeAlias = Literal["discovery", "answer", "base"]
"""Who speaks: the discovery agent, any other agent, or an untuned base model."""


class Intent(BaseModel):
    """What a visitor may want, and what is said then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    agent: str
    dimension: str
    keywords: tuple[str, ...]
    discovery: tuple[str, ...]
    answer: tuple[str, ...]


class Dialogues(BaseModel):
    """The whole of `dialogues.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    company: str
    base: tuple[str, ...]
    intents: tuple[Intent, ...]
    fallback: Intent


class Reply(BaseModel):
    """One reply, with what a router or a discovery agent would say about the question."""

    model_config = ConfigDict(frozen=True)

    question: str
    intent: str
    agent: str
    dimension: str
    html: str

    @property
    def plain(self) -> str:
        """The reply without its tags, on one line."""
        return " ".join(re.sub(r"<[^>]+>", " ", self.html).split()).replace(" .", ".").replace(" ,", ",")


def stable_hash(text: str) -> int:
    """A number that is the same for the same text in every process."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


@functools.cache
def dialogues() -> Dialogues:
    """The sample dialogues, read once."""
    text = resources.files("simulators").joinpath("dialogues.yaml").read_text(encoding="utf-8")
    return Dialogues.model_validate(yaml.safe_load(text))


@functools.cache
def _patterns() -> tuple[tuple[Intent, re.Pattern[str]], ...]:
    return tuple(
        (intent, re.compile(r"\b(?:" + "|".join(map(re.escape, intent.keywords)) + r")\b", re.IGNORECASE))
        for intent in dialogues().intents
    )


def recognise(question: str) -> Intent:
    """The intent with most different keywords in `question`; the fallback when there is none."""
    best, most = dialogues().fallback, 0
    for intent, pattern in _patterns():
        hits = len({hit.lower() for hit in pattern.findall(question)})
        if hits > most:
            best, most = intent, hits
    return best


def reply_to(question: str, voice: Voice) -> Reply:
    """The same reply for the same question and voice, always."""
    question = question.strip()
    intent = recognise(question)
    match voice:
        case "discovery":
            choices = intent.discovery
        case "answer":
            choices = intent.answer
        case "base":
            choices = dialogues().base
    html = choices[stable_hash(question) % len(choices)]
    return Reply(question=question, intent=intent.name, agent=intent.agent, dimension=intent.dimension, html=html)
