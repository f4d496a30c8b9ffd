"""How TGI writes answers and errors: the native routes' events and the chat route's chunks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from simulators.answers import Answer, token_id
from simulators.jsontext import compact, json_response, quoted
from simulators.tgi_bodies import Parameters

FINGERPRINT = "3.3.6-dev0-native"
DONE = b"data: [DONE]\n\n"
STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

_END = "<|im_end|>"
_END_ID = 151_645
_TIMINGS = ("total-time", "validation-time", "queue-time", "inference-time", "time-per-token")


def _error_of(status: int, *, stream: bool) -> tuple[str, str]:
    """Message and `error_type` of the error that has this status."""
    match status:
        case 422:
            return "Input validation error: simulated refusal of this input", "validation"
        case 429:
            return "Model is overloaded", "overloaded"
        case 500 if stream:
            return "Incomplete generation stream", "incomplete_generation_stream"
        case 500:
            return "Incomplete generation", "incomplete_generation"
        case 503:
            return "unhealthy", "healthcheck"
        case _:
            return "Request failed during generation: Server error: simulated failure", "generation"


def error_response(status: int, error: str, error_type: str) -> web.Response:
    """An HTTP error as the router writes it."""
    return json_response({"error": error, "error_type": error_type}, status)


def _refusal(status: int | None) -> web.Response:
    status = 424 if status is None else status
    if status == 401:
        return web.Response(status=401)
    return error_response(status, *_error_of(status, stream=False))


def _token_json(text: str, value: float) -> str:
    return f'{{"id":{token_id(text)},"text":{quoted(text)},"logprob":{value},"special":false}}'


_END_JSON = f'{{"id":{_END_ID},"text":"{_END}","logprob":-0.0001,"special":true}}'


@dataclass(frozen=True, slots=True)
class NativeWire:
    """Writes answers as `/generate` and `/generate_stream` do."""

    parameters: Parameters
    echoed: str
    characters: int
    listed: bool = False

    def headers(self, answer: Answer, *, stream: bool) -> Mapping[str, str]:
        """Compute headers, and for a whole answer the token counts."""
        common = {"x-compute-type": "gpu+optimized", "x-compute-characters": str(self.characters)}
        if stream:
            return STREAM_HEADERS | common
        timings = {f"x-{name}": "1" for name in _TIMINGS}
        counts = {"x-prompt-tokens": str(answer.prompt_tokens), "x-generated-tokens": str(answer.generated)}
        return {"Content-Type": "application/json"} | common | {"x-compute-time": "0.001"} | timings | counts

    def opening(self) -> bytes:
        """Nothing: the first event is the first token."""
        return b""

    def token(self, answer: Answer, index: int) -> bytes:
        """A token event; the last one of an answer cut by its length also carries the text."""
        last = answer.finish == "length" and index == len(answer.tokens) - 1
        token = _token_json(answer.tokens[index], answer.logprob(index))
        count = self.parameters.top_n_tokens or 0
        tops = [_token_json(text, value) for text, value in answer.ranked(index, count)]
        return self._event(answer, index, token, tops, last=last)

    def closing(self, answer: Answer) -> list[bytes]:
        """The end token with the whole text, if the model came to it. There is no done mark on this route."""
        if answer.finish != "stop":
            return []
        tops = [_END_JSON] if self.parameters.top_n_tokens else []
        return [self._event(answer, len(answer.tokens), _END_JSON, tops, last=True)]

    def broken(self, status: int | None) -> list[bytes]:
        """An error event; nothing follows it."""
        return [native_error(*_error_of(424 if status is None else status, stream=True))]

    def whole(self, answer: Answer) -> bytes:
        """A `GenerateResponse`; the compatibility route puts it in a list."""
        body: dict[str, object] = {"generated_text": self.echoed + answer.text}
        if self.parameters.details or self.parameters.decoder_input_details:
            body["details"] = self._details(answer)
        return compact([body] if self.listed else body).encode()

    def refusal(self, status: int | None) -> web.Response:
        """An HTTP error in the router's words."""
        return _refusal(status)

    def _event(self, answer: Answer, index: int, token: str, top: list[str], *, last: bool) -> bytes:
        text, details = "null", "null"
        if last:
            text = quoted(self.echoed + answer.text)
            if self.parameters.details:
                details = compact(
                    {
                        "finish_reason": _native_finish(answer),
                        "generated_tokens": answer.generated,
                        "seed": self.parameters.seed,
                        "input_length": answer.prompt_tokens,
                    }
                )
        tops = f'"top_tokens":[{",".join(top)}],' if top else ""
        event = f'{{"index":{index + 1},"token":{token},{tops}"generated_text":{text},"details":{details}}}'
        return f"data: {event}\n\n".encode()

    def _details(self, answer: Answer) -> dict[str, object]:
        tokens: list[object] = [
            json.loads(_token_json(text, answer.logprob(index))) for index, text in enumerate(answer.tokens)
        ]
        if answer.finish == "stop":
            tokens.append(json.loads(_END_JSON))
        return {
            "finish_reason": _native_finish(answer),
            "generated_tokens": answer.generated,
            "seed": self.parameters.seed,
            "prefill": [],
            "tokens": tokens,
        }


def _native_finish(answer: Answer) -> str:
    return "eos_token" if answer.finish == "stop" else "length"


def native_error(error: str, error_type: str) -> bytes:
    """An error inside a native stream; nothing follows it."""
    return f"data: {compact({'error': error, 'error_type': error_type})}\n\n".encode()


@dataclass(frozen=True, slots=True)
class ChatWire:
    """Writes answers as `/v1/chat/completions` does."""

    model: str
    created: int
    logprobs: int | None
    usage: bool

    def headers(self, answer: Answer, *, stream: bool) -> Mapping[str, str]:
        """Content type and compute headers."""
        common = {"x-compute-type": "gpu+optimized", "x-compute-characters": str(answer.prompt_tokens * 4)}
        return (STREAM_HEADERS if stream else {"Content-Type": "application/json"}) | common

    def opening(self) -> bytes:
        """Nothing: there is no chunk with the role alone."""
        return b""

    def token(self, answer: Answer, index: int) -> bytes:
        """A chunk whose delta has the role and one token."""
        last = answer.finish == "length" and index == len(answer.tokens) - 1
        logprobs = "null" if self.logprobs is None else f'{{"content":[{_entry(answer, index, self.logprobs)}]}}'
        return self._chunk(answer.tokens[index], logprobs, '"length"' if last else "null")

    def closing(self, answer: Answer) -> list[bytes]:
        """The end token as empty content with the finish reason, usage if asked for, the done mark."""
        events: list[bytes] = []
        if answer.finish == "stop":
            events.append(self._chunk("", "null" if self.logprobs is None else _END_LOGPROBS, '"stop"'))
        if self.usage:
            events.append(self._envelope("[]", compact(_usage(answer))))
        return [*events, DONE]

    def broken(self, status: int | None) -> list[bytes]:
        """An error event that says 422 whatever happened, then the done mark."""
        error, _ = _error_of(424 if status is None else status, stream=True)
        return [chat_error(error), DONE]

    def whole(self, answer: Answer) -> bytes:
        """A `chat.completion`."""
        logprobs = "null"
        if (top := self.logprobs) is not None:
            entries = ",".join(_entry(answer, index, top) for index in range(len(answer.tokens)))
            logprobs = f'{{"content":[{entries}]}}'
        finish = "stop" if answer.finish == "stop" else "length"
        return (
            f'{{"object":"chat.completion","id":"","created":{self.created},"model":{quoted(self.model)},'
            f'"system_fingerprint":"{FINGERPRINT}","choices":[{{"index":0,"message":{{"role":"assistant",'
            f'"content":{quoted(answer.text)}}},"logprobs":{logprobs},"finish_reason":"{finish}"}}],'
            f'"usage":{compact(_usage(answer))}}}'
        ).encode()

    def refusal(self, status: int | None) -> web.Response:
        """An HTTP error in the router's words."""
        return _refusal(status)

    def _chunk(self, content: str, logprobs: str, finish: str) -> bytes:
        choice = (
            f'{{"index":0,"delta":{{"role":"assistant","content":{quoted(content)}}},'
            f'"logprobs":{logprobs},"finish_reason":{finish}}}'
        )
        return self._envelope(f"[{choice}]", "null")

    def _envelope(self, choices: str, usage: str) -> bytes:
        return (
            f'data: {{"object":"chat.completion.chunk","id":"","created":{self.created},'
            f'"model":{quoted(self.model)},"system_fingerprint":"{FINGERPRINT}","choices":{choices},"usage":{usage}}}\n\n'
        ).encode()


def _entry(answer: Answer, index: int, top: int) -> str:
    """One entry of `logprobs.content`: the token, and the likeliest ones in its place."""
    tops = ",".join(f"{{{_scored(text, value)}}}" for text, value in answer.ranked(index, top))
    return f'{{{_scored(answer.tokens[index], answer.logprob(index))},"top_logprobs":[{tops}]}}'


def _scored(text: str, value: float) -> str:
    return f'"token":{quoted(text)},"logprob":{value}'


_END_LOGPROBS = f'{{"content":[{{{_scored(_END, -0.0001)},"top_logprobs":[]}}]}}'


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.generated,
        "total_tokens": answer.prompt_tokens + answer.generated,
    }


def chat_error(error: str) -> bytes:
    """An error inside a chat stream: the code is 422 whatever happened. The done mark follows it."""
    return f"data: {compact({'error': {'message': error, 'http_status_code': 422}})}\n\n".encode()
