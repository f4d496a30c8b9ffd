"""An answer without any model, labelled as such: made of the turn's material, else of rules over the last message."""

import html
import json
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from schemas.completions import CompletionRequest, Delta, Finish
from schemas.materials import Material
from workers.providers.calling import call
from workers.providers.offline_answers import LABEL, Fields, compose

_DELTA: Final = 12
"""Characters a delta."""
_MOST_QUOTED: Final = 80
_ASKED_ABOUT: Final = frozenset({"budget", "timeline"})
"""Dimensions that a rule recognises in what a visitor asks: that is what the next question is about."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What to say to a message that `pattern` matches. `{quoted}` stands for the visitor's words."""

    pattern: re.Pattern[str]
    dimension: str
    reply: str


def _rule(words: str, dimension: str, reply: str) -> _Rule:
    return _Rule(re.compile(words, re.IGNORECASE), dimension, reply)


_RULES: Final = (
    _rule(
        r"\b(price|prices|pricing|cost|costs|budget|quote|expensive|cheap\w*|fees?)\b|[$€£]\s?\d",
        "budget",
        "Prices depend on your use, and I will not guess one. What budget have you set aside, roughly?",
    ),
    _rule(
        r"\b(problems?|issues?|errors?|broken|fail\w*|bugs?|crash\w*|stuck|not work\w*|(does|do|is)n'?t work\w*)\b",
        "pain_points",
        "I am sorry that this is giving you trouble. What did you do just before it happened?",
    ),
    _rule(
        r"\b(thanks?|thank you|thx|cheers|much appreciated)\b",
        "next_step",
        "You are welcome. Is there anything else you want to know?",
    ),
    _rule(
        r"^\W*(hi|hello|hey|good (morning|afternoon|evening)|greetings)\b",
        "pain_points",
        "Hello! What brings you here today?",
    ),
    _rule(
        r"\b(when|deadline|how (soon|long)|by (monday|tuesday|wednesday|thursday|friday|next \w+))\b",
        "timeline",
        "I cannot promise a date myself. By when do you need this?",
    ),
    _rule(
        r"\?|^\W*(what|how|why|who|where|which|can|could|do|does|is|are|will)\b",
        "current_solution",
        "You asked: “{quoted}” No model is connected, so I cannot answer that well. What do you use for it today?",
    ),
)
_OTHERWISE: Final = _rule("", "pain_points", "You said: “{quoted}” Which part of it matters most to you right now?")
_NO_WORDS: Final = _rule("", "pain_points", "What would you like to know?")


class OfflineProvider:
    """Answers at once and always; stands in where no model server is configured."""

    name = "offline"

    def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta | Finish]:
        """Stream one answer; see `schemas.completions.Provider`."""
        return call(request, _answer, provider=self.name)

    async def aclose(self) -> None:
        """Close nothing: nothing is open."""


async def _answer(request: CompletionRequest, _: Mapping[str, str]) -> AsyncGenerator[Delta | Finish]:
    text = json.dumps(answer_fields(request), ensure_ascii=False)
    for start in range(0, len(text), _DELTA):
        yield Delta(text[start : start + _DELTA])
    yield Finish("stop")


def answer_fields(request: CompletionRequest) -> Fields:
    """Return the properties of the request's schema that have a meaning here; decision and text, without a schema."""
    if request.material is not None:
        return fields_of(request.material, request.json_schema)
    known = _properties(request.json_schema)
    return _kept(_by_rule(request, known), known)


def fields_of(material: Material, schema: Mapping[str, JsonValue]) -> Fields:
    """Return an answer to the turn in the shape that its agent's answers have."""
    known = _properties(schema)
    listed = _listed(known)
    about = _choose(material.text.strip()).dimension
    if about in _ASKED_ABOUT and about in listed:
        listed = [about, *listed]
    return _kept(compose(material, listed), known)


def _kept(fields: Fields, known: Mapping[str, JsonValue] | None) -> Fields:
    return fields if known is None else {name: fields[name] for name in known if name in fields}


def _properties(schema: Mapping[str, JsonValue]) -> Mapping[str, JsonValue] | None:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else None


def _by_rule(request: CompletionRequest, known: Mapping[str, JsonValue] | None) -> Fields:
    said = next((m.content for m in reversed(request.messages) if m.role == "user"), "").strip()
    rule = _choose(said)
    quoted = said if len(said) <= _MOST_QUOTED else said[: _MOST_QUOTED - 1].rstrip() + "…"
    reply = html.escape(LABEL + rule.reply.replace("{quoted}", quoted), quote=False)
    listed = _listed(known)
    dimension = rule.dimension if not listed or rule.dimension in listed else listed[0]
    return {"dimension": dimension, "html_response": f"<p>{reply}</p>"}


def _choose(said: str) -> _Rule:
    if not said:
        return _NO_WORDS
    return next((rule for rule in _RULES if rule.pattern.search(said)), _OTHERWISE)


def _listed(properties: Mapping[str, JsonValue] | None) -> list[str]:
    """Return what the schema allows an answer to be."""
    shape = (properties or {}).get("dimension")
    listed = shape.get("enum") if isinstance(shape, dict) else None
    return [str(one) for one in listed] if isinstance(listed, list) else []
