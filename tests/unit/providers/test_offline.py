"""The answers without a model."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from schemas.completions import CompletionRequest, Delta, Finish, Message, ModelClocks
from schemas.ids import TurnId
from workers.providers.offline import OfflineProvider
from workers.providers.offline_answers import LABEL

SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"dimension": {"type": "string"}, "html_response": {"type": "string"}},
}


def _request(said: str, schema: dict[str, JsonValue] = SCHEMA) -> CompletionRequest:
    return CompletionRequest(
        turn_id=TurnId("t"),
        ordinal=1,
        model="offline",
        messages=(Message("system", "s"), Message("user", "earlier"), Message("user", said)),
        json_schema=schema,
        max_tokens=400,
        clocks=ModelClocks(1, 1, 1, 1),
    )


async def _answer(said: str, schema: dict[str, JsonValue] = SCHEMA) -> dict[str, str]:
    *deltas, finish = [item async for item in OfflineProvider().stream(_request(said, schema))]
    assert finish == Finish("stop")
    assert len(deltas) > 3
    return json.loads("".join(delta.text for delta in deltas if isinstance(delta, Delta)))


@pytest.mark.parametrize(
    ("said", "dimension", "words"),
    [
        ("Hello there", "pain_points", "What brings you here"),
        ("What does it cost?", "budget", "budget"),
        ("The export is broken", "pain_points", "just before it happened"),
        ("It doesn't work on my phone", "pain_points", "just before it happened"),
        ("thank you!", "next_step", "You are welcome"),
        ("We need this by Friday", "timeline", "By when"),
        ("Can it sync with our shop?", "current_solution", "Can it sync with our shop?"),
        ("We have 40 vans", "pain_points", "We have 40 vans"),
        ("", "pain_points", "What would you like to know?"),
    ],
)
async def test_rules(said: str, dimension: str, words: str) -> None:
    """Each kind of message gets a fitting reply that says it is offline and, unless thanked, asks one question."""
    answer = await _answer(said)
    assert answer["dimension"] == dimension
    assert answer["html_response"].startswith(f"<p>{LABEL}")
    assert words in answer["html_response"]
    assert answer["html_response"].endswith("?</p>")


@given(st.text(max_size=200))
async def test_quotes_are_escaped(said: str) -> None:
    """Whatever a visitor writes, the reply's only tags are its own paragraph."""
    answer = (await _answer(said))["html_response"]
    inner = answer.removeprefix("<p>").removesuffix("</p>")
    assert "<" not in inner
    assert ">" not in inner


async def test_the_schema_is_kept() -> None:
    """The fields and the choices are those of the request's schema."""
    limited: dict[str, JsonValue] = {"properties": {"dimension": {"enum": ["team", "timeline"]}}}
    assert await _answer_fields(limited) == {"dimension": "team"}


async def _answer_fields(schema: dict[str, JsonValue]) -> dict[str, str]:
    items = [item async for item in OfflineProvider().stream(_request("Hello", schema))]
    return json.loads("".join(item.text for item in items if isinstance(item, Delta)))
