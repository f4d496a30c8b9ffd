"""Streams of real servers, byte by byte as they came; only the model's path in those of transformers was shortened."""

from pathlib import Path

import pytest

from schemas.completions import BackendFailed, Delta, Finish, InvalidRequest, ProviderError, Unavailable
from workers.providers.mapping import from_status
from workers.providers.reading import ChatChunks

_RECORDED = Path(__file__).with_name("recorded")
_ANSWER = '{"dimension": "timeline", "html_response": "<p>one question</p>"}'


def _read(name: str, size: int) -> tuple[ChatChunks, list[Delta]]:
    stream = (_RECORDED / name).read_bytes()
    dialect = ChatChunks()
    fed = [dialect.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    return dialect, [delta for delta in fed if delta is not None]


@pytest.mark.parametrize("size", [1, 100, 1_000_000])
def test_transformers_serve(size: int) -> None:
    """A role without content, usage in the chunk that ends, and no done mark make a whole answer."""
    dialect, deltas = _read("transformers_answer.sse", size)
    assert "".join(delta.text for delta in deltas) == _ANSWER
    assert dialect.failure is None
    assert dialect.finish == Finish("stop", input_tokens=46, output_tokens=22)


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_transformers_serve_fails_inside_its_stream(size: int) -> None:
    """Its error is a sentence where others have an object, after status 200; none of its words are repeated."""
    dialect, deltas = _read("transformers_error.sse", size)
    assert deltas == []
    assert type(dialect.failure) is BackendFailed
    assert "max_new_tokens" not in str(dialect.failure)


@pytest.mark.parametrize("size", [1, 100, 1_000_000])
def test_llama_cpp(size: int) -> None:
    """A role whose content is null, timings beside the usage, then the done mark make a whole answer."""
    dialect, deltas = _read("llama_cpp_answer.sse", size)
    assert "".join(delta.text for delta in deltas) == _ANSWER
    assert dialect.failure is None
    assert dialect.finish == Finish("stop", input_tokens=46, output_tokens=22)


@pytest.mark.parametrize("size", [1, 100, 1_000_000])
def test_llama_cpp_logprobs(size: int) -> None:
    """A Markdown fence that the server swallowed leaves its log-probability behind, which is nobody's: none is kept."""
    dialect, deltas = _read("llama_cpp_logprobs.sse", size)
    tokens = [token for delta in deltas for token in delta.tokens]
    assert "".join(tokens) == "".join(delta.text for delta in deltas)
    assert len(tokens) == sum(len(delta.logprobs) for delta in deltas) > 0
    assert not any("`" in token for token in tokens)
    assert dialect.finish is not None
    assert dialect.finish.reason == "length"


@pytest.mark.parametrize(
    ("status", "body", "kind", "advice"),
    [
        (
            400,
            b'{"error":{"code":400,"message":"request (10020 tokens) exceeds the available context size (4096 tokens), '
            b'try increasing it","type":"exceed_context_size_error","n_prompt_tokens":10020,"n_ctx":4096}}',
            InvalidRequest,
            "the prompt's length",
        ),
        (
            401,
            b'{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}',
            InvalidRequest,
            "look at the key",
        ),
        (
            503,
            b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}',
            Unavailable,
            "it is not ready",
        ),
        (
            400,
            b"{\"detail\":\"Server is pinned to 'SmolLM2-135M-Instruct'; requested 'nope'.\"}",
            InvalidRequest,
            "the model's name",
        ),
        (500, b"Internal Server Error", BackendFailed, "look at its log"),
    ],
)
def test_refusals_of_real_servers(status: int, body: bytes, kind: type[ProviderError], advice: str) -> None:
    """What llama.cpp (first three) and `transformers serve` refuse becomes our sentence that says where to look."""
    error = from_status(status, body)
    assert type(error) is kind
    assert advice in str(error)
