"""The official Hugging Face client meets the TGI simulator."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
from huggingface_hub import (
    AsyncInferenceClient,
    ChatCompletionInputJSONSchema,
    ChatCompletionInputResponseFormatJSONSchema,
    ChatCompletionInputStreamOptions,
    TextGenerationInputGrammarType,
    TextGenerationStreamOutput,
)
from huggingface_hub.errors import (
    GenerationError,
    IncompleteGenerationError,
    OverloadedError,
    ValidationError,
)

from simulators.testing import SimulatorHandle

PROMPT = "System: You are the discovery agent.\nUser: picking is slow and we lose hours\nAssistant:"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "dimension": {"type": "string", "enum": ["budget", "pain_points"]},
        "html_response": {"type": "string"},
    },
    "required": ["dimension", "html_response"],
}
GRAMMAR = TextGenerationInputGrammarType(type="json", value=SCHEMA)


@pytest.fixture
async def client(tgi_sim: SimulatorHandle) -> AsyncGenerator[AsyncInferenceClient]:
    """The official client, with a key of its own so that it sends no saved one."""
    async with (
        asyncio.timeout(30),
        AsyncInferenceClient(base_url=tgi_sim.base_url, api_key="-", timeout=10) as client,
    ):
        yield client


async def _stream(
    client: AsyncInferenceClient, adapter_id: str | None = "discovery"
) -> list[TextGenerationStreamOutput]:
    stream = await client.text_generation(
        PROMPT,
        details=True,
        stream=True,
        adapter_id=adapter_id,
        grammar=GRAMMAR,
        max_new_tokens=400,
        return_full_text=False,
    )
    return [event async for event in stream]


async def test_a_stream_has_details_and_follows_the_grammar(
    client: AsyncInferenceClient, tgi_sim: SimulatorHandle
) -> None:
    """A native stream gives each token with its log probability, then the whole text, which is the JSON asked for."""
    *tokens, last = await _stream(client)

    text = "".join(event.token.text for event in tokens)
    assert last.generated_text == text
    assert last.token.special
    assert list(json.loads(text)) == ["dimension", "html_response"]
    assert json.loads(text)["dimension"] == "pain_points"
    assert all(-0.5 <= event.token.logprob < 0 for event in tokens)
    assert [event.index for event in (*tokens, last)] == list(range(1, len(tokens) + 2))
    assert last.details is not None
    assert (last.details.finish_reason, last.details.generated_tokens) == ("eos_token", len(tokens) + 1)
    assert tgi_sim.requests()[0]["adapter"] == "discovery"


async def test_an_unknown_adapter_is_the_base_model(client: AsyncInferenceClient) -> None:
    """An adapter that is not loaded is answered by the base model, without a word about it."""
    tuned, unknown, base = [
        (await _stream(client, adapter))[-1].generated_text for adapter in ("discovery", "nobody", None)
    ]

    assert unknown == base
    assert tuned != base


async def test_a_whole_answer_has_details(client: AsyncInferenceClient) -> None:
    """A whole answer lists its tokens, and they join to its text."""
    answer = await client.text_generation(
        PROMPT, details=True, adapter_id="discovery", max_new_tokens=400, return_full_text=False
    )

    assert answer.details is not None
    visible = [token.text for token in answer.details.tokens if not token.special]
    assert "".join(visible) == answer.generated_text


async def test_the_compatibility_route_echoes_the_prompt(client: AsyncInferenceClient) -> None:
    """Without `return_full_text: false` the prompt comes back in front of the answer."""
    answer = await client.text_generation(PROMPT, max_new_tokens=400)

    assert answer.startswith(PROMPT)


async def test_a_length_limit_ends_on_a_visible_token(client: AsyncInferenceClient) -> None:
    """An answer cut by its length has no end token; its last visible token carries the text."""
    stream = await client.text_generation(PROMPT, details=True, stream=True, max_new_tokens=4, return_full_text=False)
    events = [event async for event in stream]

    assert len(events) == 4
    assert not events[-1].token.special
    assert events[-1].generated_text == "".join(event.token.text for event in events)
    assert events[-1].details is not None
    assert events[-1].details.finish_reason == "length"


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, OverloadedError), (424, GenerationError), (422, ValidationError), (500, IncompleteGenerationError)],
)
async def test_http_errors_have_their_class(
    client: AsyncInferenceClient, tgi_sim: SimulatorHandle, status: int, error: type[Exception]
) -> None:
    """Each error status carries the `error_type` that the client turns into its class."""
    tgi_sim.control(fault="status", status=status)

    with pytest.raises(error):
        await client.text_generation(PROMPT)


@pytest.mark.parametrize(("status", "error"), [(429, OverloadedError), (424, GenerationError)])
@pytest.mark.parametrize("after_tokens", [0, 3])
async def test_errors_inside_a_stream_have_their_class(
    client: AsyncInferenceClient,
    tgi_sim: SimulatorHandle,
    status: int,
    error: type[Exception],
    after_tokens: int,
) -> None:
    """Overload and backend failure also come as an event under HTTP 200, first or later."""
    tgi_sim.control(fault="event", status=status, after_tokens=after_tokens)

    with pytest.raises(error):
        await _stream(client)

    call = tgi_sim.requests()[0]
    assert (call["status"], call["outcome"], call["tokens"]) == (200, "event", after_tokens)


async def test_validation_inside_a_stream_is_an_event(client: AsyncInferenceClient) -> None:
    """A grammar without properties is refused inside the stream, as everything that validation refuses."""
    grammar = TextGenerationInputGrammarType(type="json", value={"type": "string"})
    stream = await client.text_generation(PROMPT, stream=True, grammar=grammar)

    with pytest.raises(ValidationError, match="Grammar must have a 'properties' field"):
        await anext(aiter(stream))


async def test_an_abrupt_close_is_a_transport_error(client: AsyncInferenceClient, tgi_sim: SimulatorHandle) -> None:
    """A connection reset in mid-chunk is a raw transport error of the client's HTTP library."""
    tgi_sim.control(fault="close", after_tokens=3)

    with pytest.raises(httpx2.TransportError):
        await _stream(client)


async def test_a_clean_cut_gives_no_final_event(client: AsyncInferenceClient, tgi_sim: SimulatorHandle) -> None:
    """A stream cut cleanly raises nothing and never says its whole text."""
    tgi_sim.control(fault="cut", after_tokens=3)

    events = await _stream(client)

    assert len(events) == 3
    assert all(event.generated_text is None for event in events)


async def test_chat_streams_tokens_and_usage(client: AsyncInferenceClient) -> None:
    """A chat stream has the role in every delta, ends with the reason and reports usage."""
    stream = await client.chat_completion(
        [{"role": "user", "content": "hello"}],
        model="discovery",
        stream=True,
        stream_options=ChatCompletionInputStreamOptions(include_usage=True),
    )
    *middle, finish, usage = [chunk async for chunk in stream]

    assert {chunk.choices[0].delta.role for chunk in middle} == {"assistant"}
    assert finish.choices[0].finish_reason == "stop"
    assert finish.choices[0].delta.content == ""
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens == len(middle) + 1


async def test_chat_takes_the_clients_json_schema(client: AsyncInferenceClient) -> None:
    """The client rewrites an OpenAI schema into the shape with `value`, and the answer follows it."""
    wanted = ChatCompletionInputResponseFormatJSONSchema(
        type="json_schema", json_schema=ChatCompletionInputJSONSchema(name="answer", schema=SCHEMA)
    )
    answer = await client.chat_completion(
        [{"role": "user", "content": "what does it cost"}], model="discovery", response_format=wanted
    )

    assert json.loads(answer.choices[0].message.content or "")["dimension"] == "budget"
