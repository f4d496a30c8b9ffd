"""How OpenAI and vLLM write answers and errors."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from simulators.answers import Answer
from simulators.jsontext import compact, json_response, quoted

_DONE = b"data: [DONE]\n\n"
_RETRY_AFTER_SECONDS = 1

_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}
_MESSAGES = {
    401: "Incorrect API key provided.",
    429: "Rate limit reached for requests. Please try again later.",
    503: "The model is overloaded with other requests. Please try again later.",
}


def error_body(status: int, message: str, param: str | None = None) -> dict[str, object]:
    """An error object as vLLM shapes it."""
    kind = _TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def _simulated(status: int | None) -> dict[str, object]:
    status = 500 if status is None else status
    return error_body(status, _MESSAGES.get(status, "Simulated failure of the model server."))


@dataclass(frozen=True, slots=True)
class CompletionWire:
    """Writes answers as `/v1/chat/completions` does."""

    id: str
    created: int
    model: str
    logprobs: int | None
    usage: bool

    def headers(self, answer: Answer, *, stream: bool) -> Mapping[str, str]:
        """The content type and the request's id."""
        kind = "text/event-stream; charset=utf-8" if stream else "application/json"
        return {"Content-Type": kind, "X-Request-Id": self.id.removeprefix("chatcmpl-")}

    def opening(self) -> bytes:
        """The chunk with the role and no content."""
        return self._chunk('{"role":"assistant","content":""}', "null", "null")

    def token(self, answer: Answer, index: int) -> bytes:
        """A chunk with one token."""
        logprobs = "null" if self.logprobs is None else f'{{"content":[{_entry(answer, index, self.logprobs)}]}}'
        return self._chunk(f'{{"content":{quoted(answer.tokens[index])}}}', logprobs, "null")

    def closing(self, answer: Answer) -> list[bytes]:
        """The finish chunk, the usage chunk if asked for, the done mark."""
        events = [self._chunk("{}", "null", f'"{answer.finish}"')]
        if self.usage:
            events.append(self._envelope("[]", f',"usage":{compact(_usage(answer))}'))
        return [*events, _DONE]

    def broken(self, status: int | None) -> list[bytes]:
        """An error object with its true code, then the done mark."""
        return [f"data: {compact(_simulated(status))}\n\n".encode(), _DONE]

    def whole(self, answer: Answer) -> bytes:
        """A `chat.completion`."""
        logprobs = "null"
        if (top := self.logprobs) is not None:
            entries = ",".join(_entry(answer, index, top) for index in range(len(answer.tokens)))
            logprobs = f'{{"content":[{entries}]}}'
        return (
            f'{{"id":"{self.id}","object":"chat.completion","created":{self.created},"model":{quoted(self.model)},'
            f'"choices":[{{"index":0,"message":{{"role":"assistant","content":{quoted(answer.text)},"refusal":null}},'
            f'"logprobs":{logprobs},"finish_reason":"{answer.finish}"}}],"usage":{compact(_usage(answer))}}}'
        ).encode()

    def refusal(self, status: int | None) -> web.Response:
        """An HTTP error; 429 says when to come back."""
        status = 500 if status is None else status
        headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if status == 429 else None
        return json_response(_simulated(status), status, headers)

    def _chunk(self, delta: str, logprobs: str, finish: str) -> bytes:
        return self._envelope(f'[{{"index":0,"delta":{delta},"logprobs":{logprobs},"finish_reason":{finish}}}]', "")

    def _envelope(self, choices: str, rest: str) -> bytes:
        return (
            f'data: {{"id":"{self.id}","object":"chat.completion.chunk","created":{self.created},'
            f'"model":{quoted(self.model)},"choices":{choices}{rest}}}\n\n'
        ).encode()


def _entry(answer: Answer, index: int, top: int) -> str:
    """One entry of `logprobs.content`: the token, and the likeliest ones in its place."""
    tops = ",".join(_alternative(text, value) for text, value in answer.ranked(index, top))
    chosen = _alternative(answer.tokens[index], answer.logprob(index))
    return f'{chosen[:-1]},"top_logprobs":[{tops}]}}'


def _alternative(text: str, value: float) -> str:
    return f'{{"token":{quoted(text)},"logprob":{value},"bytes":{compact(list(text.encode()))}}}'


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "total_tokens": answer.prompt_tokens + answer.generated,
        "completion_tokens": answer.generated,
    }
