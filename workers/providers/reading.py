"""From the bytes of a response to deltas and a finish; the dialects differ, the reading does not."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final, Protocol, cast

import jiter

from schemas.completions import Delta, Finish, Incomplete, ProviderError
from workers.providers.mapping import from_openai_event, from_tgi_event, not_the_dialect
from workers.providers.sse import SseDecoder
from workers.providers.wire import Reply

TAIL_SECONDS: Final = 0.25
"""For what follows a finish reason: usage, the done mark, the end of the body. The answer is whole without them."""


class Dialect(Protocol):
    """One server's way of streaming, without I/O. Fed bytes; read `failure` and `finish` after each."""

    failure: ProviderError | None
    """Why the stream is no good from here on."""
    finish: Finish | None
    """Set once the model has said why it stopped."""

    def feed(self, read: bytes) -> Delta | None:
        """Return the text that came in `read`, if any; of a broken stream, the text before the break."""
        ...


async def read_answer(reply: Reply, dialect: Dialect) -> AsyncGenerator[Delta | Finish]:
    """Yield one delta for each read that has text, then the finish.

    Raises:
        ProviderError: the stream broke, said so itself, or ended without a finish reason.
    """
    while dialect.finish is None and (read := await reply.read()):
        delta = dialect.feed(read)
        if delta is not None:
            yield delta
        if dialect.failure is not None:
            raise dialect.failure
    if dialect.finish is None:
        raise Incomplete("the model server ended its stream without a finish reason; look at its log")
    await _read_tail(reply, dialect)
    yield dialect.finish


async def _read_tail(reply: Reply, dialect: Dialect) -> None:
    """Read to the end of the body, so that usage is known and the connection can carry the next call."""
    try:
        async with asyncio.timeout(TAIL_SECONDS):
            while read := await reply.read():
                dialect.feed(read)
    except (TimeoutError, ProviderError):
        return


class TgiEvents:
    """TGI's native stream: one token an event, the last with details; there is no done mark."""

    def __init__(self) -> None:
        self.failure: ProviderError | None = None
        self.finish: Finish | None = None
        self._events = SseDecoder()

    def feed(self, read: bytes) -> Delta | None:
        """Return the text of the tokens in `read`."""
        texts: list[str] = []
        logprobs: list[float] = []
        try:
            for payload in self._events.feed(read):
                if payload and not self._event(jiter.from_json(payload), texts, logprobs):
                    break
        except ProviderError as error:
            self.failure = error
        except (ValueError, LookupError, TypeError, AttributeError):
            self.failure = not_the_dialect("TGI")
        text = "".join(texts)
        return Delta(text, tuple(logprobs), tuple(texts)) if text else None

    def _event(self, event: dict[str, object], texts: list[str], logprobs: list[float]) -> bool:
        """Take one event; return whether more may follow."""
        if event.get("error") is not None:
            self.failure = from_tgi_event(event)
            return False
        token = cast("dict[str, object]", event["token"])
        # The end of the turn is a token too; its words are not the model's.
        if not token["special"]:
            texts.append(_text(token["text"]))
            logprobs.append(_number(token["logprob"]))
        details = event.get("details")
        if details is None:
            return True
        self.finish = _tgi_finish(cast("dict[str, object]", details))
        return False


def _tgi_finish(details: dict[str, object]) -> Finish:
    return Finish(
        _text(details["finish_reason"]),
        input_tokens=_count(details.get("input_length")),
        output_tokens=_count(details.get("generated_tokens")),
    )


class ChatChunks:
    """The stream of OpenAI, vLLM and what is compatible: chunks, then usage, then a done mark."""

    def __init__(self) -> None:
        self.failure: ProviderError | None = None
        self.finish: Finish | None = None
        self._events = SseDecoder()
        self._refused = False

    def feed(self, read: bytes) -> Delta | None:
        """Return the text of the chunks in `read`."""
        texts: list[str] = []
        logprobs: list[float] = []
        tokens: list[str] = []
        try:
            for payload in self._events.feed(read):
                if payload == b"[DONE]":
                    break
                if payload and not self._chunk(jiter.from_json(payload), texts, logprobs, tokens):
                    break
        except ProviderError as error:
            self.failure = error
        except (ValueError, LookupError, TypeError, AttributeError):
            self.failure = not_the_dialect("the OpenAI API")
        text = "".join(texts)
        return Delta(text, tuple(logprobs), tuple(tokens)) if text else None

    def _chunk(self, chunk: dict[str, object], texts: list[str], logprobs: list[float], tokens: list[str]) -> bool:
        """Take one chunk; return whether more may follow."""
        if chunk.get("error") is not None:
            self.failure = from_openai_event(chunk["error"])
            return False
        choices = cast("list[dict[str, object]]", chunk["choices"])
        if choices:
            self._choice(choices[0], texts, logprobs, tokens)
        usage = chunk.get("usage")
        if usage is not None and self.finish is not None:
            self._usage(cast("dict[str, object]", usage))
        return True

    def _choice(self, choice: dict[str, object], texts: list[str], logprobs: list[float], tokens: list[str]) -> None:
        delta = cast("dict[str, object]", choice["delta"])
        content = delta.get("content")
        if content:
            texts.append(_text(content))
            scored = choice.get("logprobs")
            if scored is not None:
                entries = cast("dict[str, list[dict[str, object]] | None]", scored)["content"] or ()
                logprobs.extend(_number(entry["logprob"]) for entry in entries)
                tokens.extend(_text(entry["token"]) for entry in entries)
        elif delta.get("refusal"):
            self._refused = True
        reason = choice.get("finish_reason")
        if reason:
            # A refusal arrives beside the content and ends with `stop`; nothing of the answer was shown.
            self.finish = Finish("content_filter" if self._refused else _text(reason))

    def _usage(self, usage: dict[str, object]) -> None:
        if self.finish is not None:
            self.finish = Finish(
                self.finish.reason,
                input_tokens=_count(usage.get("prompt_tokens")),
                output_tokens=_count(usage.get("completion_tokens")),
            )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError("a number was expected")
    return float(value)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None
