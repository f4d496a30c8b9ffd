"""How the simulated frontier decides who answers: what an orchestrator's question is answered with."""

import functools
import json
import re
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from simulators.answers import Answer, tokenise
from simulators.dialogues import reply_to
from simulators.prompts import Prompt
from simulators.shapes import Schema, fill

Words = dict[str, tuple[str, ...]]


class Knowledge(BaseModel):
    """The whole of `routing.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    agents: Words
    signals: Words
    risks: Words
    phases: Words
    languages: Words


class Said(BaseModel):
    """One earlier message."""

    model_config = ConfigDict(extra="ignore")

    turn: int | None = None
    text: str = ""


class Asked(BaseModel):
    """What the orchestrator asks about: a conversation and its new message."""

    model_config = ConfigDict(extra="ignore")

    message: str
    conversation: list[Said] = []


@functools.cache
def knowledge() -> Knowledge:
    """What the simulated router knows, read once."""
    text = resources.files("simulators").joinpath("routing.yaml").read_text(encoding="utf-8")
    return Knowledge.model_validate(yaml.safe_load(text))


def decide(prompt: Prompt, schema: Schema | None) -> Answer:
    """The decision about the message in `prompt`, as JSON of `schema`."""
    asked = _asked(prompt.question)
    decided = decision(asked)
    filled = fill(schema or {"type": "object"}, reply_to(asked.message, "answer"))
    value = {**filled, **{k: v for k, v in decided.items() if k in filled}} if isinstance(filled, dict) else filled
    return Answer(tuple(tokenise(json.dumps(value, ensure_ascii=False))), "stop", prompt.tokens)


def decision(asked: Asked) -> dict[str, JsonValue]:
    """What is decided, by property of the orchestrator's schema."""
    known, text = knowledge(), asked.message
    repeats = _repeated(asked)
    agent = "adaptive_response" if repeats is not None else _first(known.agents, text) or "discovery"
    signals: list[JsonValue] = [
        {"kind": kind, "quote": found[0]} for kind in known.signals if (found := _find(known.signals[kind], text))
    ]
    phase = "customer" if agent == "support" else _first(known.phases, text)
    return {
        "phase": phase or ("evaluation" if signals else "discovery" if asked.conversation else "opening"),
        "language": _language(text),
        "intent": f"{agent.replace('_', ' ')} question",
        "buying_signals": signals,
        "repeat_of": repeats,
        "risk": _first(known.risks, text) or "none",
        "agent": agent,
        "confidence": 0.9 if agent != "discovery" else 0.75,
        "reason": f"Known words point to {agent.replace('_', ' ')}.",
    }


def _asked(question: str) -> Asked:
    try:
        return TypeAdapter(Asked).validate_json(question)
    except ValidationError:
        return Asked(message=question)


def _repeated(asked: Asked) -> int | None:
    words = set(re.findall(r"\w{3,}", asked.message.lower()))
    if len(words) < 3:
        return None
    earlier = ((said.turn, set(re.findall(r"\w{3,}", said.text.lower()))) for said in reversed(asked.conversation))
    return next((turn for turn, said in earlier if turn and len(words & said) >= 0.8 * len(words | said)), None)


def _first(words: Words, text: str) -> str | None:
    return next((name for name, known in words.items() if _find(known, text)), None)


def _find(words: tuple[str, ...], text: str) -> re.Match[str] | None:
    return _pattern(words).search(text)


@functools.cache
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)


def _language(text: str) -> str:
    words = re.findall(r"\w+", text.lower())
    counts = {name: sum(word in known for word in words) for name, known in knowledge().languages.items()}
    return max(counts, key=lambda name: counts[name])
