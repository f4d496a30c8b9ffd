"""The bytes on the wire, exactly."""

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from simulators.testing import SimulatorHandle

Raw = Callable[..., Coroutine[None, None, Any]]
ChatBody = Callable[..., dict[str, Any]]

TGI_CHAT = {"model": "discovery", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
NATIVE = {"inputs": "hello", "parameters": {"details": True, "adapter_id": "discovery"}}


def _timeless(event: bytes) -> bytes:
    """The event with its clock and random id made the same everywhere."""
    event = re.sub(rb'"created":\d+', b'"created":0', event)
    return re.sub(rb"chatcmpl-[0-9a-f]{32}", b"chatcmpl-0", event)


async def test_tgi_native_stream(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """A native stream: one event a chunk, `data: ` with the space, the text in the last one, and no done mark."""
    response = await raw(tgi_sim, "POST", "/generate_stream", NATIVE)

    assert response.status == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.ended
    assert response.chunks[0] == (
        b'data: {"index":1,"token":{"id":125578,"text":"Hello","logprob":-0.005144,"special":false},'
        b'"generated_text":null,"details":null}\n\n'
    )
    count = len(response.chunks)
    text = "".join(json.loads(chunk[6:])["token"]["text"] for chunk in response.chunks[:-1])
    assert response.chunks[-1] == (
        b'data: {"index":%d,"token":{"id":151645,"text":"<|im_end|>","logprob":-0.0001,"special":true},'
        b'"generated_text":%b,"details":{"finish_reason":"eos_token","generated_tokens":%d,"seed":null,'
        b'"input_length":2}}\n\n' % (count, json.dumps(text, ensure_ascii=False).encode(), count)
    )
    assert b"[DONE]" not in response.body


async def test_tgi_native_error_inside_a_stream(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """An error is one event with its type; the stream ends after it without a done mark."""
    tgi_sim.control(fault="event", status=429)

    response = await raw(tgi_sim, "POST", "/generate_stream", NATIVE)

    assert response.status == 200
    assert response.chunks == [b'data: {"error":"Model is overloaded","error_type":"overloaded"}\n\n']
    assert response.ended


async def test_tgi_chat_stream(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """A chat stream: an empty id, the role in each delta, usage null, and the done mark with its space."""
    response = await raw(tgi_sim, "POST", "/v1/chat/completions", TGI_CHAT)

    events = [_timeless(chunk) for chunk in response.chunks]
    start = (
        b'data: {"object":"chat.completion.chunk","id":"","created":0,"model":"discovery",'
        b'"system_fingerprint":"3.3.6-dev0-native","choices":[{"index":0,"delta":{"role":"assistant","content":'
    )
    assert events[0] == start + b'"Hello"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
    assert events[-2] == start + b'""},"logprobs":null,"finish_reason":"stop"}],"usage":null}\n\n'
    assert events[-1] == b"data: [DONE]\n\n"


async def test_tgi_chat_error_inside_a_stream(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """A chat stream says 422 whatever happened, and the done mark follows."""
    tgi_sim.control(fault="event", status=429, after_tokens=1)

    response = await raw(tgi_sim, "POST", "/v1/chat/completions", TGI_CHAT)

    assert response.chunks[1:] == [
        b'data: {"error":{"message":"Model is overloaded","http_status_code":422}}\n\n',
        b"data: [DONE]\n\n",
    ]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, b'{"error":"Model is overloaded","error_type":"overloaded"}'),
        (500, b'{"error":"Incomplete generation","error_type":"incomplete_generation"}'),
        (503, b'{"error":"unhealthy","error_type":"healthcheck"}'),
        (401, b""),
    ],
)
async def test_tgi_http_errors(tgi_sim: SimulatorHandle, raw: Raw, status: int, body: bytes) -> None:
    """HTTP errors have the router's body; overload does not say when to come back."""
    tgi_sim.control(fault="status", status=status)

    response = await raw(tgi_sim, "POST", "/generate", NATIVE)

    assert (response.status, response.body) == (status, body)
    assert "retry-after" not in response.headers


@pytest.mark.parametrize(
    "shape",
    [
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"properties": {}}}},
        {"type": "json_object"},
        {"type": "text"},
    ],
)
async def test_tgi_refuses_the_openai_shape(tgi_sim: SimulatorHandle, raw: Raw, shape: object) -> None:
    """A response format without `value` is refused in plain text, before any stream."""
    response = await raw(tgi_sim, "POST", "/v1/chat/completions", TGI_CHAT | {"response_format": shape})

    assert response.status == 422
    assert response.headers["content-type"].startswith("text/plain")
    assert response.body.startswith(b"Failed to deserialize the JSON body into the target type: response_format")


@pytest.mark.parametrize("field", [{"stop": "end"}, {"logit_bias": {"50": 1}}])
async def test_tgi_refuses_openai_field_types(tgi_sim: SimulatorHandle, raw: Raw, field: dict[str, object]) -> None:
    """A plain string for `stop` and an object for `logit_bias` are refused."""
    response = await raw(tgi_sim, "POST", "/v1/chat/completions", TGI_CHAT | field)

    assert response.status == 422


async def test_tgi_refuses_tools_with_a_grammar(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """Tools and a response format together are a real HTTP 422, even for a stream."""
    both: dict[str, object] = {"tools": [{}], "response_format": {"type": "json_object", "value": {"properties": {}}}}

    response = await raw(tgi_sim, "POST", "/v1/chat/completions", TGI_CHAT | both)

    assert response.status == 422
    assert json.loads(response.body)["error_type"] == "tool_error"


async def test_tgi_refuses_too_long_inputs(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """Too many tokens are HTTP 422 for a whole answer and an event under HTTP 200 for a stream."""
    long = NATIVE | {"inputs": "word " * 8000}

    whole = await raw(tgi_sim, "POST", "/generate", long)
    stream = await raw(tgi_sim, "POST", "/generate_stream", long)

    assert (whole.status, json.loads(whole.body)["error_type"]) == (422, "validation")
    assert stream.status == 200
    assert stream.body.startswith(b'data: {"error":"Input validation error: `inputs` must have less than')


async def test_tgi_refuses_what_is_not_json(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """Bad syntax is 400 and another content type 415, both in plain text."""
    syntax = await raw(tgi_sim, "POST", "/generate", b"{")
    other = await raw(tgi_sim, "POST", "/generate", b"{}", Content_Type="text/plain")

    assert (syntax.status, other.status) == (400, 415)
    assert other.body == b"Expected request with `Content-Type: application/json`"


async def test_tgi_health_follows_the_fault(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """Health is an empty 200, and 503 while the backend could not generate a token."""
    well = await raw(tgi_sim, "GET", "/health")
    tgi_sim.control(fault="status", status=500)
    ill = await raw(tgi_sim, "GET", "/health")

    assert (well.status, well.body) == (200, b"")
    assert (ill.status, ill.body) == (503, b'{"error":"unhealthy","error_type":"healthcheck"}')


async def test_tgi_describes_itself(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """`/info` has the limits, `/v1/models` only the base model, `/chat_tokenize` spans that cover the text."""
    info = json.loads((await raw(tgi_sim, "GET", "/info")).body)
    models = json.loads((await raw(tgi_sim, "GET", "/v1/models")).body)
    tokenized = json.loads((await raw(tgi_sim, "POST", "/chat_tokenize", TGI_CHAT)).body)

    assert info["max_input_tokens"] == 8192
    assert [model["id"] for model in models["data"]] == [info["model_id"]]
    text = tokenized["templated_text"]
    assert text == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert "".join(text[span["start"] : span["stop"]] for span in tokenized["tokenize_response"]) == text


async def test_tgi_follows_a_regex(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """A regular expression with known alternatives is answered with one of them."""
    grammar = {"type": "regex", "value": "(maybe|never)"}

    response = await raw(tgi_sim, "POST", "/generate", {"inputs": "hello", "parameters": {"grammar": grammar}})

    assert json.loads(response.body) == {"generated_text": "maybe"}


async def test_openai_stream(openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody) -> None:
    """An OpenAI stream: role first, then tokens, the finish chunk, the usage chunk, the done mark with its space."""
    body = chat_body(stream=True, stream_options={"include_usage": True})

    response = await raw(openai_sim, "POST", "/v1/chat/completions", body)

    events = [_timeless(chunk) for chunk in response.chunks]
    start = b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":0,"model":"frontier","choices":['
    tokens = len(events) - 4
    assert events[0] == (
        start + b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
    )
    assert events[1] == (start + b'{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}]}\n\n')
    assert events[-3] == start + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
    assert events[-2] == (
        start
        + b'],"usage":{"prompt_tokens":2,"total_tokens":%d,"completion_tokens":%d}}\n\n' % (tokens + 3, tokens + 1)
    )
    assert events[-1] == b"data: [DONE]\n\n"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"


async def test_openai_error_inside_a_stream(openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody) -> None:
    """An error event has the true code, and the done mark follows."""
    openai_sim.control(fault="event", after_tokens=0)

    response = await raw(openai_sim, "POST", "/v1/chat/completions", chat_body(stream=True))

    assert response.chunks == [
        b'data: {"error":{"message":"Simulated failure of the model server.","type":"InternalServerError",'
        b'"param":null,"code":500}}\n\n',
        b"data: [DONE]\n\n",
    ]


async def test_a_cut_ends_the_body_and_nothing_else(openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody) -> None:
    """A clean cut sends the tokens, ends the chunked body properly, and has neither finish nor done mark."""
    openai_sim.control(fault="cut", after_tokens=2)

    response = await raw(openai_sim, "POST", "/v1/chat/completions", chat_body(stream=True))

    assert response.ended
    assert len(response.chunks) == 3
    assert b"[DONE]" not in response.body
    assert b'"finish_reason":"stop"' not in response.body


@pytest.mark.parametrize("stream", [True, False])
async def test_a_close_is_a_reset_in_the_middle(
    openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody, stream: bool
) -> None:
    """An abrupt close is a TCP reset in mid-body, and the tokens before it have arrived."""
    openai_sim.control(fault="close", after_tokens=2)

    response = await raw(openai_sim, "POST", "/v1/chat/completions", chat_body(stream=stream))

    assert response.reset
    assert not response.ended
    assert response.body.count(b'"content":"') == (3 if stream else 1)


async def test_openai_refusals_name_the_parameter(openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody) -> None:
    """What the server does not take is a 400 that names the parameter."""
    no_messages = await raw(openai_sim, "POST", "/v1/chat/completions", {"model": "frontier"})
    no_schema = await raw(
        openai_sim, "POST", "/v1/chat/completions", chat_body(response_format={"type": "json_schema"})
    )

    assert (no_messages.status, json.loads(no_messages.body)["error"]["param"]) == (400, "messages")
    assert (no_schema.status, json.loads(no_schema.body)["error"]["param"]) == (400, "response_format")
