"""An answer without any model: a few rules over the visitor's last message, and labelled as such."""

import html
import json
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final, cast

from pydantic import JsonValue

from schemas.completions import CompletionRequest, Delta, Finish
from workers.providers.calling import call

LABEL: Final = "(offline) "
"""Every answer begins with it: nobody shall take rules for a model."""

_DELTA: Final = 12
"""Characters a delta."""
_MOST_QUOTED: Final = 80


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
    text = json.dumps(_fields(request), ensure_ascii=False)
    for start in range(0, len(text), _DELTA):
        yield Delta(text[start : start + _DELTA])
    yield Finish("stop")


def _fields(request: CompletionRequest) -> dict[str, str]:
    """Return the properties of the request's schema that have a meaning here; both, without a schema."""
    said = next((m.content for m in reversed(request.messages) if m.role == "user"), "").strip()
    rule = _choose(said)
    quoted = said if len(said) <= _MOST_QUOTED else said[: _MOST_QUOTED - 1].rstrip() + "…"
    reply = html.escape(LABEL + rule.reply.replace("{quoted}", quoted), quote=False)
    properties = request.json_schema.get("properties")
    known = cast("dict[str, JsonValue]", properties) if isinstance(properties, dict) else None
    fields = {"dimension": _allowed(rule.dimension, known), "html_response": f"<p>{reply}</p>"}
    return fields if known is None else {name: fields[name] for name in known if name in fields}


def _choose(said: str) -> _Rule:
    if not said:
        return _NO_WORDS
    return next((rule for rule in _RULES if rule.pattern.search(said)), _OTHERWISE)


def _allowed(dimension: str, properties: Mapping[str, JsonValue] | None) -> str:
    """Return `dimension`, or the schema's first if it lists others."""
    shape = (properties or {}).get("dimension")
    listed = shape.get("enum") if isinstance(shape, dict) else None
    if not isinstance(listed, list) or not listed or dimension in listed:
        return dimension
    return str(listed[0])
