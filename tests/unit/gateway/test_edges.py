"""Shapes at the edge: problems, widget conversations, chat messages, subscriptions."""

import asyncio
import json

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import SecretStr

from infra.redis.hub import QUEUE_FRAMES, Subscription
from producers.admission import NotAccepted
from producers.gateway.openai_messages import ChatMessage, split_messages
from producers.gateway.problems import problem_of, respond
from producers.gateway.tokens import TokenInvalid, WidgetTokens
from schemas.frames import Phase, TurnStreamInfo, render
from schemas.ids import TurnId

FRAME = render(TurnStreamInfo(TurnId("3f9d3f0e-6b5e-5a60-9a4e-0c8d6f1f2a11"), "c1", 1), 1, Phase.ROUTED)


def test_same_problem_in_both_shapes() -> None:
    """OpenAI's routes get OpenAI's shape, everything else RFC 9457; status and Retry-After are the same."""
    error = problem_of(NotAccepted("Not now.", retry_after=7))
    ours, theirs = respond("/v1/turns/x", error), respond("/v1/chat/completions", error)
    assert ours.status_code == theirs.status_code == 503
    assert ours.headers["retry-after"] == theirs.headers["retry-after"] == "7"
    assert ours.headers["content-type"] == "application/problem+json"
    assert json.loads(bytes(ours.body))["code"] == json.loads(bytes(theirs.body))["error"]["code"] == "not_accepted"


def test_validation_problem_repeats_no_input() -> None:
    """Neither values nor odd field names of the request come back."""
    errors = [
        {"type": "extra_forbidden", "loc": ("body", "my secret: 42"), "msg": "Extra inputs are not permitted"},
        {"type": "literal_error", "loc": ("body", "role"), "msg": "Input should be 'a', got 'secret'"},
    ]
    found = problem_of(RequestValidationError(errors)).problem.model_dump_json()
    assert "secret" not in found
    assert "body.role" in found


def test_conversation_made_here_is_known_again() -> None:
    """The mark in a conversation's id holds for its tenant and its secret only."""
    tokens = WidgetTokens(SecretStr("a" * 32), seconds=60)
    conversation = tokens.new_conversation("acme")
    assert tokens.made_here("acme", conversation)
    assert not tokens.made_here("other", conversation)
    assert not tokens.made_here("acme", conversation[:-1] + "7")
    assert not tokens.made_here("acme", "web-1")
    assert not WidgetTokens(SecretStr("b" * 32), seconds=60).made_here("acme", conversation)


def test_short_secret_signs_nothing() -> None:
    """A secret under 32 bytes counts as none."""
    tokens = WidgetTokens(SecretStr("short"), seconds=60)
    assert not tokens.enabled
    with pytest.raises(TokenInvalid):
        tokens.read("a.b.c")


def test_last_user_message_is_the_turn() -> None:
    """What follows the last user message is left out, and so are instructions and tools."""
    messages = [
        ChatMessage(role="developer", content="be brief"),
        ChatMessage(role="user", content="one"),
        ChatMessage(role="tool", content="42"),
        ChatMessage(role="assistant", content=None),
        ChatMessage(role="user", content="two"),
        ChatMessage(role="assistant", content="so"),
    ]
    text, history = split_messages(messages)
    assert text == "two"
    assert [(m.role, m.text) for m in history] == [("user", "one")]
    with pytest.raises(ValueError, match="role 'user'"):
        split_messages([ChatMessage(role="system", content="x")])


async def test_full_subscription_lags_instead_of_growing() -> None:
    """Past its limit a subscription drops what it holds and says so; later frames are heard again."""
    subscription = Subscription(asyncio.Event())
    subscription.push([FRAME] * QUEUE_FRAMES)
    subscription.push([FRAME])
    heard = await subscription.hear(1)
    assert (heard.frames, heard.missed) == ((), "lagging")
    subscription.push([FRAME])
    heard = await subscription.hear(1)
    assert (heard.frames, heard.missed) == ((FRAME,), None)
    assert (await subscription.hear(0.01)).frames == ()
