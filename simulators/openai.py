"""Chat completions and embeddings as OpenAI and vLLM speak them."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from simulators.answers import Answer, compose, logprob, tokenise
from simulators.control import CONTROL, Fault
from simulators.dialogues import Voice
from simulators.embeddings import DIMENSIONS, embed, packed
from simulators.prompts import Message, Prompt, from_messages
from simulators.serving import open_call, refuse, serve, take_fault
from simulators.shapes import DEFAULT_SCHEMA, Schema

MODELS = web.AppKey("models", tuple[str, ...])

_MAX_MODEL_TOKENS = 32_768
_DONE = b"data: [DONE]\n\n"
_RETRY_AFTER_SECONDS = 1
_quoted = json.JSONEncoder(ensure_ascii=False).encode
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class _Lenient(BaseModel):
    """Fields nobody knows are ignored, as the server does."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class NamedSchema(_Lenient):
    """A JSON schema with a name."""

    name: str
    strict: bool | None = None
    schema_: Schema | None = Field(default=None, alias="schema")


class ResponseFormat(_Lenient):
    """What the text has to look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class StreamOptions(_Lenient):
    """What else the stream should carry."""

    include_usage: bool | None = None


class ChatBody(_Lenient):
    """The body of `/v1/chat/completions`."""

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None


class EmbeddingsBody(_Lenient):
    """The body of `/v1/embeddings`."""

    model: str
    input: str | list[str] | list[int] | list[list[int]]
    dimensions: int | None = Field(default=None, ge=1, le=4096)
    encoding_format: Literal["float", "base64"] = "float"


# -- errors --------------------------------------------------------------------------------------------------

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


def _error(status: int, message: str, param: str | None = None) -> dict[str, object]:
    kind = _TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def _simulated(status: int | None) -> dict[str, object]:
    status = 500 if status is None else status
    return _error(status, _MESSAGES.get(status, "Simulated failure of the model server."))


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=_compact(value).encode(),
        status=status,
        headers={"Content-Type": "application/json"} | dict(headers or {}),
    )


# -- the wire ------------------------------------------------------------------------------------------------


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
        text = answer.tokens[index]
        logprobs = "null" if self.logprobs is None else _logprobs(text, index, self.logprobs)
        return self._chunk(f'{{"content":{_quoted(text)}}}', logprobs, "null")

    def closing(self, answer: Answer) -> list[bytes]:
        """The finish chunk, the usage chunk if asked for, the done mark."""
        events = [self._chunk("{}", "null", f'"{answer.finish}"')]
        if self.usage:
            events.append(self._envelope("[]", f',"usage":{_compact(_usage(answer))}'))
        return [*events, _DONE]

    def broken(self, status: int | None) -> list[bytes]:
        """An error object with its true code, then the done mark."""
        return [f"data: {_compact(_simulated(status))}\n\n".encode(), _DONE]

    def whole(self, answer: Answer) -> bytes:
        """A `chat.completion`."""
        logprobs = "null"
        if (top := self.logprobs) is not None:
            entries = ",".join(_logprob_entry(text, index, top) for index, text in enumerate(answer.tokens))
            logprobs = f'{{"content":[{entries}]}}'
        return (
            f'{{"id":"{self.id}","object":"chat.completion","created":{self.created},"model":{_quoted(self.model)},'
            f'"choices":[{{"index":0,"message":{{"role":"assistant","content":{_quoted(answer.text)},"refusal":null}},'
            f'"logprobs":{logprobs},"finish_reason":"{answer.finish}"}}],"usage":{_compact(_usage(answer))}}}'
        ).encode()

    def refusal(self, status: int | None) -> web.Response:
        """An HTTP error; 429 says when to come back."""
        status = 500 if status is None else status
        headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if status == 429 else None
        return _json(_simulated(status), status, headers)

    def _chunk(self, delta: str, logprobs: str, finish: str) -> bytes:
        return self._envelope(
            f'[{{"index":0,"delta":{delta},"logprobs":{logprobs},"finish_reason":{finish}}}]', ""
        )

    def _envelope(self, choices: str, rest: str) -> bytes:
        return (
            f'data: {{"id":"{self.id}","object":"chat.completion.chunk","created":{self.created},'
            f'"model":{_quoted(self.model)},"choices":{choices}{rest}}}\n\n'
        ).encode()


def _logprobs(text: str, index: int, top: int) -> str:
    return f'{{"content":[{_logprob_entry(text, index, top)}]}}'


def _logprob_entry(text: str, index: int, top: int) -> str:
    """One entry of `logprobs.content`: the token itself leads its alternatives."""
    value = logprob(text, index)
    others = [(f" other{rank}", round(value - 2 - rank, 4)) for rank in range(1, top)]
    tops = ",".join(_alternative(*each) for each in [(text, value), *others][:top])
    return f'{_alternative(text, value)[:-1]},"top_logprobs":[{tops}]}}'


def _alternative(text: str, value: float) -> str:
    return f'{{"token":{_quoted(text)},"logprob":{value},"bytes":{_compact(list(text.encode()))}}}'


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "total_tokens": answer.prompt_tokens + answer.generated,
        "completion_tokens": answer.generated,
    }


# -- what a request asks -------------------------------------------------------------------------------------


class RefusedError(Exception):
    """The server does not accept the request; `response` says so in its words."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.response = _json(_error(status, message, param), status)


def _chat_body(text: bytes, models: tuple[str, ...]) -> ChatBody:
    """The body, if this server would take it; raises `RefusedError`."""
    try:
        body = ChatBody.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise RefusedError(400, first["msg"], ".".join(map(str, first["loc"])) or None) from None
    if body.model not in models:
        aliases = ", ".join(f"`{model}`" for model in models)
        raise RefusedError(
            404, f"The model `{body.model}` does not exist. Valid aliases: {aliases}.", "model"
        )
    shape = body.response_format
    if (
        shape is not None
        and shape.type == "json_schema"
        and (shape.json_schema is None or shape.json_schema.schema_ is None)
    ):
        raise RefusedError(
            400,
            "`json_schema` must be given when `response_format.type` is 'json_schema'.",
            "response_format",
        )
    if body.stream_options is not None and not body.stream:
        raise RefusedError(400, "Stream options can only be defined when `stream=True`.", "stream_options")
    return body


def _check_length(prompt: Prompt) -> None:
    if prompt.tokens > _MAX_MODEL_TOKENS:
        raise RefusedError(
            400,
            f"This model's maximum context length is {_MAX_MODEL_TOKENS} tokens. "
            f"However, your messages resulted in {prompt.tokens} tokens. Please reduce the length of the messages.",
            "messages",
        )


def _voice(model: str, prompt: Prompt) -> Voice:
    """The discovery agent speaks if the system prompt or, without one, the model is named so."""
    return "discovery" if (prompt.agent or model) == "discovery" else "answer"


def _schema(shape: ResponseFormat | None, prompt: Prompt) -> Schema | None:
    if shape is not None and shape.type == "json_schema" and shape.json_schema is not None:
        return shape.json_schema.schema_
    if prompt.wants_json or (shape is not None and shape.type == "json_object"):
        return DEFAULT_SCHEMA
    return None


def _answer(body: ChatBody, prompt: Prompt, fault: Fault) -> Answer:
    schema = _schema(body.response_format, prompt)
    answer = compose(prompt, voice=_voice(body.model, prompt), schema=schema, length=fault.tokens)
    if fault.fault == "malformed":
        answer = answer.malformed(fault.after)
    return answer.limited(body.max_completion_tokens or body.max_tokens)


# -- routes --------------------------------------------------------------------------------------------------


async def _chat(request: web.Request) -> web.StreamResponse:
    call = open_call(request)
    try:
        body = _chat_body(await request.read(), request.app[MODELS])
        prompt = from_messages(body.messages)
        _check_length(prompt)
    except RefusedError as error:
        return refuse(call, error.response)
    call.model, call.stream = body.model, bool(body.stream)
    wire = CompletionWire(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=body.model,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        usage=body.stream_options is not None and bool(body.stream_options.include_usage),
    )
    fault = take_fault(request)
    return await serve(request, call, wire, _answer(body, prompt, fault), fault)


async def _embeddings(request: web.Request) -> web.Response:
    try:
        body = EmbeddingsBody.model_validate_json(await request.read())
    except ValidationError as error:
        return _json(_error(400, error.errors()[0]["msg"], "input"), 400)
    texts = _texts(body.input)
    vectors = [embed(text, body.dimensions or DIMENSIONS) for text in texts]
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": packed(vector) if body.encoding_format == "base64" else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    tokens = sum(len(tokenise(text)) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _json({"object": "list", "data": data, "model": body.model, "usage": usage})


def _texts(given: str | list[str] | list[int] | list[list[int]]) -> list[str]:
    """One text an embedding; token ids count as words."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [" ".join(map(str, given))]
    return [one if isinstance(one, str) else str(one) for one in given]


async def _models(request: web.Request) -> web.Response:
    created = int(time.time())
    data: list[JsonValue] = [
        {
            "id": model,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": model,
            "parent": None,
        }
        for model in request.app[MODELS]
    ]
    return _json({"object": "list", "data": data})


async def _health(request: web.Request) -> web.Response:
    """Healthy as long as the fault in force would let the server generate a token."""
    return web.Response(status=503 if request.app[CONTROL].fault.breaks_health else 200)


def openai_routes() -> list[web.RouteDef]:
    """The routes of this dialect."""
    return [
        web.post("/v1/chat/completions", _chat),
        web.post("/v1/embeddings", _embeddings),
        web.get("/v1/models", _models),
        web.get("/health", _health),
    ]
