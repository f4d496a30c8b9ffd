"""The two dialects, fed with bytes."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from schemas.completions import Delta, Finish, Malformed
from workers.providers.openai import strict
from workers.providers.reading import ChatChunks, Dialect, TgiEvents


def _event(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def _chunk(content: str | None, *, finish: str | None = None, **delta: object) -> bytes:
    choice = {"index": 0, "delta": {"content": content, **delta}, "finish_reason": finish}
    return _event({"choices": [choice]})


def _tgi(text: str, *, special: bool = False, details: object = None) -> bytes:
    token = {"id": 1, "text": text, "logprob": -0.5, "special": special}
    return _event({"index": 1, "token": token, "details": details})


def _openai_stream(tokens: list[str]) -> bytes:
    usage = _event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(tokens)}})
    return b"".join([_chunk("", role="assistant"), *map(_chunk, tokens), _chunk(None, finish="stop"), usage]) + (
        b"data: [DONE]\n\n"
    )


def _tgi_stream(tokens: list[str]) -> bytes:
    details = {"finish_reason": "eos_token", "generated_tokens": len(tokens), "input_length": 3}
    return b"".join(map(_tgi, tokens)) + _tgi("<|im_end|>", special=True, details=details)


def _read(dialect: Dialect, stream: bytes, cuts: list[int]) -> list[Delta]:
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    fed = [dialect.feed(stream[a:b]) for a, b in pairwise(places)]
    assert dialect.failure is None
    return [delta for delta in fed if delta is not None]


TOKENS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), min_size=1, max_size=8)
CUTS = st.lists(st.integers(0, 5_000), max_size=10)


@given(TOKENS, CUTS)
def test_openai_text_is_whole(tokens: list[str], cuts: list[int]) -> None:
    """However the stream is cut, the deltas join to the text, and finish and usage are those sent."""
    dialect = ChatChunks()
    assert "".join(d.text for d in _read(dialect, _openai_stream(tokens), cuts)) == "".join(tokens)
    assert dialect.finish == Finish("stop", input_tokens=3, output_tokens=len(tokens))


@given(TOKENS, CUTS)
def test_tgi_text_is_whole(tokens: list[str], cuts: list[int]) -> None:
    """However the stream is cut, the deltas join to the text without special tokens, each token with its logprob."""
    dialect = TgiEvents()
    deltas = _read(dialect, _tgi_stream(tokens), cuts)
    assert "".join(d.text for d in deltas) == "".join(tokens)
    assert sum(len(d.logprobs) for d in deltas) == len(tokens)
    assert dialect.finish == Finish("eos_token", input_tokens=3, output_tokens=len(tokens))


@pytest.mark.parametrize(
    "garbage",
    [b"{", b"null", b"[]", b'"x"', b"7", b"{}", b'{"choices":7}', b'{"choices":[{}]}', b'{"token":{"text":7}}'],
)
@pytest.mark.parametrize("dialect", [ChatChunks, TgiEvents])
def test_garbage_keeps_what_came_before(dialect: type[ChatChunks | TgiEvents], garbage: bytes) -> None:
    """An event that is not the dialect's makes the stream malformed, and the text before it in the same read stays."""
    before = _chunk("before") if dialect is ChatChunks else _tgi("before")
    reading = dialect()
    delta = reading.feed(before + b"data: " + garbage + b"\n\n")
    assert delta is not None
    assert delta.text == "before"
    assert isinstance(reading.failure, Malformed)


def test_refusal() -> None:
    """A model that refuses says so beside the content; for us that is the content filter."""
    dialect = ChatChunks()
    assert dialect.feed(_chunk(None, refusal="I will not.") + _chunk(None, finish="stop")) is None
    assert dialect.finish == Finish("content_filter")


def test_openai_logprobs() -> None:
    """Log-probabilities come with the text they belong to."""
    scored = {"content": [{"token": "a", "logprob": -0.25}, {"token": "b", "logprob": -1}]}
    choice = {"index": 0, "delta": {"content": "ab"}, "logprobs": scored, "finish_reason": None}
    assert ChatChunks().feed(_event({"choices": [choice]})) == Delta("ab", (-0.25, -1.0), ("a", "b"))


def test_strict_schema() -> None:
    """Strict mode needs every property and no other at every depth; names and order stay, also awkward ones."""
    inner: JsonValue = {"type": "object", "properties": {"properties": {"type": "string"}}}
    listed: JsonValue = {"type": "array", "items": inner}
    shape = strict({"type": "object", "properties": {"b": listed, "a": {"type": "string"}}})
    closed = {**inner, "required": ["properties"], "additionalProperties": False}
    assert shape == {
        "type": "object",
        "properties": {"b": {"type": "array", "items": closed}, "a": {"type": "string"}},
        "required": ["b", "a"],
        "additionalProperties": False,
    }
