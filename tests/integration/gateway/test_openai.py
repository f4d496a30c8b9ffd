"""OpenAI's own client talks to the gateway."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.integration.gateway.conftest import ORIGIN, Gateway
from tests.integration.gateway.reading import events_of
from tests.integration.gateway.worker import PIECES, Worker

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as opened:
        yield opened


async def test_whole_answer(client: AsyncOpenAI, answering: Worker) -> None:
    """A completion that does not stream is the whole answer with its tokens."""
    completion = await client.chat.completions.create(model="fairlead", messages=HELLO)
    assert completion.choices[0].message.content == "".join(PIECES)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 18
    assert completion.id == answering.events[-1].turn_id


async def test_streamed_answer(client: AsyncOpenAI, answering: Worker) -> None:
    """A streamed completion comes in pieces that OpenAI's client puts together, the usage last."""
    stream = await client.chat.completions.create(
        model="fairlead", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "".join(PIECES)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert (chunks[-1].choices, chunks[-1].usage.prompt_tokens) == ([], 11)
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


async def test_earlier_messages_are_history(client: AsyncOpenAI, answering: Worker) -> None:
    """The last user message is the turn; what was said before comes along, instructions left out."""
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "thr"}, {"type": "text", "text": "ee"}]},
    ]
    await client.chat.completions.create(model="gpt-anything", messages=messages, temperature=0.3, seed=7)
    event = answering.events[-1]
    assert event.text == "three"
    assert [(m.role, m.text) for m in event.history] == [("user", "one"), ("assistant", "two")]
    assert event.channel == "openai"


async def test_conversation_by_header_and_metadata(client: AsyncOpenAI, answering: Worker) -> None:
    """A client can name its conversation, either way; unnamed ones are new each time."""
    await client.chat.completions.create(
        model="fairlead", messages=HELLO, extra_headers={"X-Fairlead-Conversation": "named-1"}
    )
    await client.chat.completions.create(model="fairlead", messages=HELLO, metadata={"conversation_id": "named-2"})
    for _ in range(2):
        await client.chat.completions.create(model="fairlead", messages=HELLO, user="somebody")
    conversations = [event.conversation_id for event in answering.events]
    assert conversations[:2] == ["named-1", "named-2"]
    assert len(set(conversations)) == 4


async def test_idempotency_key_makes_one_turn(client: AsyncOpenAI, answering: Worker) -> None:
    """The same completion asked for twice under one key is one turn."""
    headers = {"Idempotency-Key": "once", "X-Fairlead-Conversation": "c"}
    first, second = await asyncio.gather(
        *(client.chat.completions.create(model="fairlead", messages=HELLO, extra_headers=headers) for _ in range(2))
    )
    assert first.id == second.id
    assert first.choices[0].message.content == second.choices[0].message.content


async def test_errors_are_the_clients_own(gateway: Gateway, client: AsyncOpenAI) -> None:
    """What goes wrong is raised as the class a user of OpenAI expects, with a message that helps."""
    with pytest.raises(openai.UnprocessableEntityError) as unfit:
        await client.chat.completions.create(model="fairlead", messages=[])
    assert "messages" in unfit.value.message
    with pytest.raises(openai.UnprocessableEntityError):
        await client.chat.completions.create(model="fairlead", messages=[{"role": "system", "content": "x"}])
    with pytest.raises(openai.UnprocessableEntityError):
        await client.chat.completions.create(model="fairlead", messages=[{"role": "user", "content": " "}])
    stranger = AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk-nobody", max_retries=0)
    async with stranger:
        with pytest.raises(openai.AuthenticationError) as unknown:
            await stranger.models.list()
    assert unknown.value.code == "unauthenticated"


async def test_broken_bodies_have_openais_error_shape(gateway: Gateway) -> None:
    """Even a body that is no JSON is answered in the shape OpenAI's clients read."""
    url = "/v1/chat/completions"
    for body, status in ((b"{", 400), (b'{"messages": [{"role": "user", "content": "\xff"}]}', 400), (b"[]", 422)):
        response = await gateway.http.post(url, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status
        error: dict[str, Any] = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}


async def test_models(client: AsyncOpenAI) -> None:
    """There is one model to name."""
    assert [model.id async for model in client.models.list()] == ["fairlead"]


async def test_turn_that_takes_too_long_names_itself(gateway: Gateway, client: AsyncOpenAI, worker: Worker) -> None:
    """A completion that does not stream gives up in time and says where the answer will be."""
    object.__setattr__(gateway.parts, "completion_seconds", 0.3)
    with pytest.raises(openai.InternalServerError) as late:
        await client.chat.completions.create(model="fairlead", messages=HELLO)
    assert late.value.status_code == 504
    assert worker.events[-1].turn_id in late.value.message


async def test_visitor_speaks_openai_too(gateway: Gateway, answering: Worker) -> None:
    """A widget token works here as well, in its own conversation."""
    token, conversation = await gateway.visitor_token()
    headers = gateway.bearer(token, Origin=ORIGIN)
    body = {"messages": HELLO, "stream": True}
    async with gateway.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        events = [event async for event in events_of(response)]
    assert events[-1].done
    assert answering.events[-1].conversation_id == conversation
