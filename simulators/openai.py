"""Chat completions, embeddings and images as OpenAI and vLLM speak them."""

import time
import uuid
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from simulators.answers import Answer, compose, token_id, tokenise
from simulators.control import CONTROL, Fault
from simulators.dialogues import Voice
from simulators.embeddings import DIMENSIONS, embed, packed
from simulators.images import make_image
from simulators.jsontext import json_response
from simulators.openai_wire import CompletionWire, error_body
from simulators.prompts import Message, Prompt, from_messages
from simulators.routing import decide
from simulators.serving import open_call, refuse, serve
from simulators.shapes import DEFAULT_SCHEMA, Schema

MODELS = web.AppKey("models", tuple[str, ...])

_MAX_MODEL_TOKENS = 32_768


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


class TokenizeBody(_Lenient):
    """The body of vLLM's `/tokenize`."""

    model: str | None = None
    prompt: str


class RefusedError(Exception):
    """The server does not accept the request; `response` says so in its words."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.response = json_response(error_body(status, message, param), status)


def _chat_body(text: bytes, models: tuple[str, ...]) -> ChatBody:
    """The body, if this server would take it; raises `RefusedError`."""
    try:
        body = ChatBody.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise RefusedError(400, first["msg"], ".".join(map(str, first["loc"])) or None) from None
    if body.model not in models:
        aliases = ", ".join(f"`{model}`" for model in models)
        raise RefusedError(404, f"The model `{body.model}` does not exist. Valid aliases: {aliases}.", "model")
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


def _answer(body: ChatBody, prompt: Prompt, fault: Fault, *, routing: bool) -> Answer:
    schema = _schema(body.response_format, prompt)
    if routing:
        return fault.bend(decide(prompt, schema), prompt, schema).limited(body.max_completion_tokens or body.max_tokens)
    answer = compose(prompt, voice=_voice(body.model, prompt), schema=schema, length=fault.tokens)
    return fault.bend(answer, prompt, schema).limited(body.max_completion_tokens or body.max_tokens)


async def _chat(request: web.Request) -> web.StreamResponse:
    text = await request.read()
    call = open_call(request)
    try:
        body = _chat_body(text, request.app[MODELS])
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
    answer = _answer(body, prompt, request.app[CONTROL].fault, routing=call.routing is not None)
    return await serve(request, call, wire, answer)


async def _embeddings(request: web.Request) -> web.Response:
    try:
        body = EmbeddingsBody.model_validate_json(await request.read())
    except ValidationError as error:
        return json_response(error_body(400, error.errors()[0]["msg"], "input"), 400)
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
    return json_response({"object": "list", "data": data, "model": body.model, "usage": usage})


async def _tokenize(request: web.Request) -> web.Response:
    """`POST /tokenize`, which vLLM has and OpenAI has not."""
    try:
        body = TokenizeBody.model_validate_json(await request.read())
    except ValidationError as error:
        return json_response(error_body(400, error.errors()[0]["msg"], "prompt"), 400)
    tokens = [token_id(token) for token in tokenise(body.prompt)]
    return json_response({"count": len(tokens), "max_model_len": _MAX_MODEL_TOKENS, "tokens": tokens})


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
    return json_response({"object": "list", "data": data})


async def _health(request: web.Request) -> web.Response:
    """Healthy as long as the fault in force would let the server generate a token."""
    return web.Response(status=503 if request.app[CONTROL].fault.breaks_health else 200)


def openai_routes() -> list[web.RouteDef]:
    """The routes of this dialect."""
    return [
        web.post("/v1/chat/completions", _chat),
        web.post("/v1/embeddings", _embeddings),
        web.post("/v1/images/generations", make_image),
        web.post("/tokenize", _tokenize),
        web.get("/v1/models", _models),
        web.get("/health", _health),
    ]
