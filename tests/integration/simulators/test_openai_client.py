"""The official OpenAI client meets the OpenAI simulator."""

import asyncio
import base64
import struct
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Literal

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from pydantic import BaseModel

from simulators.testing import SimulatorHandle

Until = Callable[[Callable[[], bool]], Awaitable[None]]

ASKED: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are the support agent."},
    {"role": "user", "content": "The dashboard is broken and I cannot login"},
]


class Discovery(BaseModel):
    dimension: Literal["pain_points", "timeline", "budget"]
    html_response: str


class Route(BaseModel):
    agent: Literal["discovery", "support", "technical_consultant"]
    confidence: float
    reason: str


@pytest.fixture
async def client(openai_sim: SimulatorHandle) -> AsyncGenerator[openai.AsyncOpenAI]:
    """The official client, with its retries off."""
    async with (
        asyncio.timeout(30),
        openai.AsyncOpenAI(api_key="-", base_url=f"{openai_sim.base_url}/v1", max_retries=0) as client,
    ):
        yield client


async def _stream(client: openai.AsyncOpenAI, **more: str) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(
        model="frontier",
        messages=ASKED,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=more,
    )
    async with stream:
        return [chunk async for chunk in stream]


async def test_a_stream_has_role_text_finish_and_usage(client: openai.AsyncOpenAI) -> None:
    """A stream begins with the role, carries the text, says why it stopped and what it cost, in that order."""
    first, *middle, finish, usage = await _stream(client)

    assert first.choices[0].delta.role == "assistant"
    assert first.choices[0].delta.content == ""
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle).strip()
    assert finish.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens == len(middle) + 1
    assert {chunk.id for chunk in (first, *middle, finish, usage)} == {first.id}
    assert first.id.startswith("chatcmpl-")


async def test_a_whole_answer_is_the_streamed_text(client: openai.AsyncOpenAI) -> None:
    """The same question gives the same words, streamed or whole."""
    whole = await client.chat.completions.create(model="frontier", messages=ASKED)
    streamed = "".join(c.choices[0].delta.content or "" for c in await _stream(client) if c.choices)

    assert whole.choices[0].message.content == streamed
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


async def test_structured_output_is_parsed(client: openai.AsyncOpenAI) -> None:
    """A JSON schema is followed: `parse` gives the model's fields, the enum within its values."""
    parsed = await client.chat.completions.parse(
        model="discovery", messages=[{"role": "user", "content": "what does it cost"}], response_format=Discovery
    )

    answer = parsed.choices[0].message.parsed
    assert answer is not None
    assert answer.dimension == "budget"
    assert answer.html_response.startswith("<p>")


async def test_a_router_schema_is_filled_from_the_question(client: openai.AsyncOpenAI) -> None:
    """A schema whose enum lists agents is answered with the agent that suits the question."""
    parsed = await client.chat.completions.parse(model="frontier-lite", messages=ASKED, response_format=Route)

    route = parsed.choices[0].message.parsed
    assert route is not None
    assert route.agent == "support"
    assert 0 <= route.confidence <= 1
    assert route.reason


async def test_an_unknown_model_is_not_found(client: openai.AsyncOpenAI, openai_sim: SimulatorHandle) -> None:
    """A model that is not served is refused by name, and the refusal is in the log."""
    with pytest.raises(openai.NotFoundError, match="The model `nobody` does not exist") as refused:
        await client.chat.completions.create(model="nobody", messages=ASKED)

    assert refused.value.type == "NotFoundError"
    assert [(call["outcome"], call["status"]) for call in openai_sim.requests()] == [("refused", 404)]


async def test_a_rate_limit_is_one_request(client: openai.AsyncOpenAI, openai_sim: SimulatorHandle) -> None:
    """A 429 says when to come back, and a client without retries asks exactly once."""
    openai_sim.control(fault="status", status=429)

    with pytest.raises(openai.RateLimitError) as limited:
        await client.chat.completions.create(model="frontier", messages=ASKED, extra_headers={"X-Fairlead-Turn": "t-1"})

    assert limited.value.response.headers["retry-after"] == "1"
    assert openai_sim.counts() == {"t-1": 1}


async def test_an_error_inside_a_stream_is_raised(client: openai.AsyncOpenAI, openai_sim: SimulatorHandle) -> None:
    """An error event after two tokens reaches the caller with its true code."""
    openai_sim.control(fault="event", status=503, after_tokens=2)

    with pytest.raises(openai.APIError, match="overloaded") as failed:
        await _stream(client)

    assert failed.value.type == "ServiceUnavailableError"
    assert isinstance(failed.value.body, dict)
    assert failed.value.body["code"] == 503
    assert openai_sim.requests()[0]["tokens"] == 2


async def test_a_clean_cut_raises_nothing_and_gives_no_finish_reason(
    client: openai.AsyncOpenAI, openai_sim: SimulatorHandle
) -> None:
    """A stream cut cleanly ends like any other, except that nobody said why."""
    openai_sim.control(fault="cut", after_tokens=3)

    chunks = await _stream(client)

    assert len(chunks) == 4
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
    assert openai_sim.requests()[0]["outcome"] == "cut"


@pytest.mark.parametrize("after_tokens", [0, 3])
async def test_an_abrupt_close_is_a_connection_error(
    client: openai.AsyncOpenAI, openai_sim: SimulatorHandle, after_tokens: int
) -> None:
    """A connection reset in mid-chunk is an `APIConnectionError`, not an end."""
    openai_sim.control(fault="close", after_tokens=after_tokens)

    with pytest.raises(openai.APIConnectionError):
        await _stream(client)

    call = openai_sim.requests()[0]
    assert (call["outcome"], call["tokens"], call["client_hung_up"]) == ("close", after_tokens, False)


async def test_a_close_before_headers_is_a_connection_error(
    client: openai.AsyncOpenAI, openai_sim: SimulatorHandle
) -> None:
    """A server that dies before it answers is an `APIConnectionError` too."""
    openai_sim.control(fault="close", before_headers=True)

    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(model="frontier", messages=ASKED)


@pytest.mark.parametrize("before_headers", [False, True])
async def test_a_hang_meets_the_clients_timeout(
    client: openai.AsyncOpenAI, openai_sim: SimulatorHandle, until: Until, before_headers: bool
) -> None:
    """A server that stops sending is given up by the client's timeout, and the simulator sees it go."""
    openai_sim.control(fault="hang", after_tokens=0 if before_headers else 2, before_headers=before_headers)

    with pytest.raises((openai.APITimeoutError, openai.APIConnectionError)):
        await _stream(client.with_options(timeout=0.3))

    await until(lambda: openai_sim.requests()[0]["client_hung_up"])
    assert openai_sim.requests()[0]["outcome"] == "hang"


async def test_hanging_up_is_noticed(client: openai.AsyncOpenAI, openai_sim: SimulatorHandle, until: Until) -> None:
    """A client that closes its stream early is in the log as hung up, with the tokens sent so far."""
    openai_sim.control(inter_token_ms=20, tokens=5000)
    stream = await client.chat.completions.create(model="frontier", messages=ASKED, stream=True)
    async for _ in stream:
        break

    await stream.close()

    await until(lambda: openai_sim.requests()[0]["client_hung_up"])
    call = openai_sim.requests()[0]
    assert call["outcome"] == "hung_up"
    assert call["tokens"] < 5000


async def test_logprobs_are_there_when_asked_for(client: openai.AsyncOpenAI) -> None:
    """Each token comes with its log probability and as many alternatives as were asked for."""
    answer = await client.chat.completions.create(model="frontier", messages=ASKED, logprobs=True, top_logprobs=2)

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == answer.choices[0].message.content
    assert all(-0.5 <= entry.logprob < 0 for entry in logprobs.content)
    assert {len(entry.top_logprobs) for entry in logprobs.content} == {2}


async def test_length_cuts_an_answer(client: openai.AsyncOpenAI) -> None:
    """An answer is no longer than `max_tokens`, and says so."""
    answer = await client.chat.completions.create(model="frontier", messages=ASKED, max_tokens=5)

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5


async def test_malformed_output_is_prose(client: openai.AsyncOpenAI, openai_sim: SimulatorHandle) -> None:
    """A malformed answer finishes well but is not the JSON that was asked for."""
    openai_sim.control(fault="malformed")

    answer = await client.chat.completions.create(
        model="discovery",
        messages=[{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": "hi"}],
    )

    assert answer.choices[0].finish_reason == "stop"
    assert "{" not in (answer.choices[0].message.content or "")


async def test_embeddings_put_similar_texts_near(client: openai.AsyncOpenAI) -> None:
    """Texts that share words are nearer than texts that share none, in either encoding."""
    texts = ["picking is slow", "slow picking today", "our contract with legal"]
    packed = await client.embeddings.create(model="small", input=texts, dimensions=64)
    plain = await client.embeddings.create(model="small", input=texts, dimensions=64, encoding_format="float")

    one, two, other = (entry.embedding for entry in packed.data)
    assert len(one) == 64
    assert one == pytest.approx(plain.data[0].embedding, abs=1e-6)
    near = sum(a * b for a, b in zip(one, two, strict=True))
    far = sum(a * b for a, b in zip(one, other, strict=True))
    assert near > far


async def test_an_image_is_a_png(client: openai.AsyncOpenAI, openai_sim: SimulatorHandle) -> None:
    """An image is a real PNG in base64, the same for the same prompt; its address comes to who asks for that."""
    made = [await client.images.generate(model="gpt-image-1", prompt=prompt) for prompt in ("a", "a", "b")]
    images = [base64.b64decode((answer.data or [])[0].b64_json or "") for answer in made]

    assert images[0] == images[1] != images[2]
    kind, width, height = struct.unpack_from(">4sII", images[0], 12)
    assert (kind, width, height) == (b"IHDR", 16, 16)
    assert len(zlib.decompress(images[0][41 : images[0].index(b"IEND") - 8])) == 16 * (1 + 3 * 16)
    addressed = await client.images.generate(model="dall-e-3", prompt="a", response_format="url")
    assert ((addressed.data or [])[0].b64_json, bool((addressed.data or [])[0].url)) == (None, True)
    assert {call["path"] for call in openai_sim.requests()} == {"/v1/images/generations"}


async def test_an_image_that_fails_is_an_error_of_the_client(
    client: openai.AsyncOpenAI, openai_sim: SimulatorHandle
) -> None:
    """A broken request and a failing model are HTTP errors, once each."""
    with pytest.raises(openai.BadRequestError):
        await client.images.generate(model="gpt-image-1", prompt="")
    openai_sim.control(fault="status", status=503)
    with pytest.raises(openai.InternalServerError):
        await client.images.generate(model="gpt-image-1", prompt="a")
    assert [call["outcome"] for call in openai_sim.requests()] == ["refused", "status"]


async def test_the_served_models_are_listed(client: openai.AsyncOpenAI) -> None:
    """The model list is the one that requests are checked against."""
    listed = await client.models.list()

    assert [model.id for model in listed.data] == ["frontier", "frontier-lite", "discovery"]
