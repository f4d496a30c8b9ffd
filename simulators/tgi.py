"""Text Generation Inference 3.3, native and chat routes."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from simulators.answers import Answer, compose, fitting, logprob, token_id, tokenise
from simulators.control import CONTROL, Fault
from simulators.dialogues import Voice
from simulators.journal import Call
from simulators.prompts import Message, Prompt, from_messages, from_text, templated
from simulators.serving import open_call, refuse, serve, take_fault
from simulators.shapes import DEFAULT_SCHEMA, Schema

BASE_MODEL = "Qwen/Qwen2.5-14B-Instruct"
FINGERPRINT = "3.3.6-dev0-native"
ADAPTERS = web.AppKey("adapters", frozenset[str])

_MAX_INPUT_TOKENS = 8192
_MAX_TOTAL_TOKENS = 10240
_END = "<|im_end|>"
_END_ID = 151_645
_DONE = b"data: [DONE]\n\n"
_quoted = json.JSONEncoder(ensure_ascii=False).encode
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class _Lenient(BaseModel):
    """Fields nobody knows are ignored, as the router does."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class JsonGrammar(_Lenient):
    """Output that follows a JSON schema."""

    type: Literal["json", "json_object"]
    value: JsonValue


class RegexGrammar(_Lenient):
    """Output that matches a regular expression."""

    type: Literal["regex"]
    value: str


class NamedSchema(_Lenient):
    """A JSON schema with a name."""

    name: str | None = None
    schema_: Schema = Field(alias="schema")


class JsonSchemaGrammar(_Lenient):
    """Output that follows a named JSON schema."""

    type: Literal["json_schema"]
    value: NamedSchema


Grammar: TypeAlias = Annotated[JsonGrammar | RegexGrammar | JsonSchemaGrammar, Field(discriminator="type")]


class Parameters(_Lenient):
    """The `parameters` of a native request that the simulator looks at."""

    best_of: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_n_tokens: int | None = None
    max_new_tokens: int | None = None
    return_full_text: bool | None = None
    stop: list[str] = Field(default_factory=list)
    details: bool = False
    decoder_input_details: bool = False
    seed: int | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None


class GenerateBody(_Lenient):
    """The body of `/generate`, `/generate_stream` and `/`."""

    inputs: str
    parameters: Parameters = Field(default_factory=Parameters)
    stream: bool = False


class StreamOptions(_Lenient):
    """What else a chat stream should carry."""

    include_usage: bool = False


class ChatBody(_Lenient):
    """The body of `/v1/chat/completions`."""

    messages: list[Message]
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: list[float] | None = None
    stop: list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    seed: int | None = None
    tools: list[JsonValue] | None = None
    response_format: Grammar | None = None


class RefusedError(Exception):
    """The router does not accept the request. The message is the one it gives."""

    def __init__(self, error: str, error_type: str = "validation") -> None:
        super().__init__(error)
        self.error = error
        self.error_type = error_type


class UnreadableError(Exception):
    """The body is not the JSON the route reads; answered in plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.response = web.Response(status=status, text=text)


# -- errors --------------------------------------------------------------------------------------------------


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


def _error_response(status: int, error: str, error_type: str) -> web.Response:
    return _json({"error": error, "error_type": error_type}, status)


def _refusal(status: int | None) -> web.Response:
    status = 424 if status is None else status
    if status == 401:
        return web.Response(status=401)
    return _error_response(status, *_error_of(status, stream=False))


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=_compact(value).encode(), status=status, headers={"Content-Type": "application/json"}
    )


# -- the native routes' wire ---------------------------------------------------------------------------------


def _token_json(text: str, index: int) -> str:
    return (
        f'{{"id":{token_id(text)},"text":{_quoted(text)},"logprob":{logprob(text, index)},"special":false}}'
    )


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
            return _STREAM_HEADERS | common
        timings = {f"x-{name}": "1" for name in _TIMINGS}
        counts = {"x-prompt-tokens": str(answer.prompt_tokens), "x-generated-tokens": str(answer.generated)}
        return {"Content-Type": "application/json"} | common | {"x-compute-time": "0.001"} | timings | counts

    def opening(self) -> bytes:
        """Nothing: the first event is the first token."""
        return b""

    def token(self, answer: Answer, index: int) -> bytes:
        """A token event; the last one of an answer cut by its length also carries the text."""
        last = answer.finish == "length" and index == len(answer.tokens) - 1
        return self._event(answer, index, _token_json(answer.tokens[index], index), last=last)

    def closing(self, answer: Answer) -> list[bytes]:
        """The end token with the whole text, if the model came to it. There is no done mark on this route."""
        return (
            [self._event(answer, len(answer.tokens), _END_JSON, last=True)] if answer.finish == "stop" else []
        )

    def broken(self, status: int | None) -> list[bytes]:
        """An error event; nothing follows it."""
        return [_native_error(*_error_of(424 if status is None else status, stream=True))]

    def whole(self, answer: Answer) -> bytes:
        """A `GenerateResponse`; the compatibility route puts it in a list."""
        body: dict[str, object] = {"generated_text": self.echoed + answer.text}
        if self.parameters.details or self.parameters.decoder_input_details:
            body["details"] = self._details(answer)
        return _compact([body] if self.listed else body).encode()

    def refusal(self, status: int | None) -> web.Response:
        """An HTTP error in the router's words."""
        return _refusal(status)

    def _event(self, answer: Answer, index: int, token: str, *, last: bool) -> bytes:
        text, details = "null", "null"
        if last:
            text = _quoted(self.echoed + answer.text)
            if self.parameters.details:
                details = _compact(
                    {
                        "finish_reason": _native_finish(answer),
                        "generated_tokens": answer.generated,
                        "seed": self.parameters.seed,
                        "input_length": answer.prompt_tokens,
                    }
                )
        tops = f'"top_tokens":[{token}],' if self.parameters.top_n_tokens else ""
        event = f'{{"index":{index + 1},"token":{token},{tops}"generated_text":{text},"details":{details}}}'
        return f"data: {event}\n\n".encode()

    def _details(self, answer: Answer) -> dict[str, object]:
        tokens: list[object] = [
            json.loads(_token_json(text, index)) for index, text in enumerate(answer.tokens)
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


_STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
_TIMINGS = ("total-time", "validation-time", "queue-time", "inference-time", "time-per-token")


def _native_finish(answer: Answer) -> str:
    return "eos_token" if answer.finish == "stop" else "length"


def _native_error(error: str, error_type: str) -> bytes:
    return f"data: {_compact({'error': error, 'error_type': error_type})}\n\n".encode()


# -- the chat route's wire -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChatWire:
    """Writes answers as `/v1/chat/completions` does."""

    model: str
    created: int
    logprobs: bool
    usage: bool

    def headers(self, answer: Answer, *, stream: bool) -> Mapping[str, str]:
        """Content type and compute headers."""
        common = {"x-compute-type": "gpu+optimized", "x-compute-characters": str(answer.prompt_tokens * 4)}
        return (_STREAM_HEADERS if stream else {"Content-Type": "application/json"}) | common

    def opening(self) -> bytes:
        """Nothing: there is no chunk with the role alone."""
        return b""

    def token(self, answer: Answer, index: int) -> bytes:
        """A chunk whose delta has the role and one token."""
        last = answer.finish == "length" and index == len(answer.tokens) - 1
        text = answer.tokens[index]
        return self._chunk(
            text, _chat_logprobs(text, index) if self.logprobs else "null", '"length"' if last else "null"
        )

    def closing(self, answer: Answer) -> list[bytes]:
        """The end token as empty content with the finish reason, usage if asked for, the done mark."""
        events: list[bytes] = []
        if answer.finish == "stop":
            events.append(self._chunk("", _chat_logprobs(_END, 0) if self.logprobs else "null", '"stop"'))
        if self.usage:
            events.append(self._envelope("[]", _compact(_usage(answer))))
        return [*events, _DONE]

    def broken(self, status: int | None) -> list[bytes]:
        """An error event that says 422 whatever happened, then the done mark."""
        error, _ = _error_of(424 if status is None else status, stream=True)
        return [_chat_error(error), _DONE]

    def whole(self, answer: Answer) -> bytes:
        """A `chat.completion`."""
        entries = ",".join(_logprob_entry(text, index) for index, text in enumerate(answer.tokens))
        logprobs = f'{{"content":[{entries}]}}' if self.logprobs else "null"
        finish = "stop" if answer.finish == "stop" else "length"
        return (
            f'{{"object":"chat.completion","id":"","created":{self.created},"model":{_quoted(self.model)},'
            f'"system_fingerprint":"{FINGERPRINT}","choices":[{{"index":0,"message":{{"role":"assistant",'
            f'"content":{_quoted(answer.text)}}},"logprobs":{logprobs},"finish_reason":"{finish}"}}],'
            f'"usage":{_compact(_usage(answer))}}}'
        ).encode()

    def refusal(self, status: int | None) -> web.Response:
        """An HTTP error in the router's words."""
        return _refusal(status)

    def _chunk(self, content: str, logprobs: str, finish: str) -> bytes:
        choice = (
            f'{{"index":0,"delta":{{"role":"assistant","content":{_quoted(content)}}},'
            f'"logprobs":{logprobs},"finish_reason":{finish}}}'
        )
        return self._envelope(f"[{choice}]", "null")

    def _envelope(self, choices: str, usage: str) -> bytes:
        return (
            f'data: {{"object":"chat.completion.chunk","id":"","created":{self.created},'
            f'"model":{_quoted(self.model)},"system_fingerprint":"{FINGERPRINT}","choices":{choices},"usage":{usage}}}\n\n'
        ).encode()


def _logprob_entry(text: str, index: int) -> str:
    value = logprob(text, index)
    top = f'{{"token":{_quoted(text)},"logprob":{value}}}'
    return f'{{"token":{_quoted(text)},"logprob":{value},"top_logprobs":[{top}]}}'


def _chat_logprobs(text: str, index: int) -> str:
    return f'{{"content":[{_logprob_entry(text, index)}]}}'


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.generated,
        "total_tokens": answer.prompt_tokens + answer.generated,
    }


def _chat_error(error: str) -> bytes:
    return f"data: {_compact({'error': {'message': error, 'http_status_code': 422}})}\n\n".encode()


# -- what a request asks -------------------------------------------------------------------------------------

Body = TypeVar("Body", bound=BaseModel)


_TAGS = {"json", "json_object", "json_schema", "regex"}
"""Names of grammar kinds, which pydantic puts into the place of an error and the router does not."""


async def _read(request: web.Request, shape: type[Body]) -> Body:
    """The request's body as `shape`; raises `UnreadableError` with the words of the framework."""
    if request.content_type != "application/json":
        raise UnreadableError(415, "Expected request with `Content-Type: application/json`")
    text = await request.read()
    try:
        return shape.model_validate_json(text)
    except ValidationError as error:
        raise _unreadable(error, len(text)) from None


def _unreadable(error: ValidationError, length: int) -> UnreadableError:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return UnreadableError(
            400, f"Failed to parse the request body as JSON: {first['msg']} at line 1 column {length}"
        )
    *outer, field = [str(step) for step in first["loc"] if step not in _TAGS] or ["body"]
    if first["type"] == "missing":
        what = f"{'.'.join(outer)}: missing field `{field}`" if outer else f"missing field `{field}`"
    else:
        what = f"{'.'.join([*outer, field])}: {first['msg']}"
    lead = "Failed to deserialize the JSON body into the target type"
    return UnreadableError(422, f"{lead}: {what} at line 1 column {length}")


def _voice(adapters: frozenset[str], adapter: str | None, prompt: Prompt) -> Voice:
    """Who answers: an adapter that is loaded, else the untuned base model, silently."""
    if adapter not in adapters:
        return "base"
    return "discovery" if (prompt.agent or "discovery") == "discovery" else "answer"


def _answer(prompt: Prompt, voice: Voice, grammar: Grammar | None, most: int | None, fault: Fault) -> Answer:
    """The answer under `fault`; raises `RefusedError` where the router validates."""
    _check_length(prompt, most)
    if isinstance(grammar, RegexGrammar):
        answer = _matching(grammar, prompt, voice)
    else:
        schema = _schema(grammar) or (DEFAULT_SCHEMA if prompt.wants_json else None)
        answer = compose(prompt, voice=voice, schema=schema, length=fault.tokens)
    if fault.fault == "malformed":
        answer = answer.malformed(fault.after)
    return answer.limited(most)


def _matching(grammar: RegexGrammar, prompt: Prompt, voice: Voice) -> Answer:
    answer = fitting(grammar.value, prompt, voice=voice)
    if answer is None:
        raise RefusedError(
            "Input validation error: grammar is not valid: the simulator knows no text that matches it"
        )
    return answer


def _schema(grammar: JsonGrammar | JsonSchemaGrammar | None) -> Schema | None:
    if grammar is None:
        return None
    schema = grammar.value.schema_ if isinstance(grammar, JsonSchemaGrammar) else grammar.value
    if not isinstance(schema, dict) or "properties" not in schema:
        raise RefusedError(
            "Input validation error: grammar is not valid: Grammar must have a 'properties' field"
        )
    return schema


def _check_length(prompt: Prompt, most: int | None) -> None:
    tokens = prompt.tokens
    if tokens > _MAX_INPUT_TOKENS:
        raise RefusedError(
            "Input validation error: "
            f"`inputs` must have less than {_MAX_INPUT_TOKENS} tokens. Given: {tokens}"
        )
    if most is not None and tokens + most > _MAX_TOTAL_TOKENS:
        raise RefusedError(
            f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {_MAX_TOTAL_TOKENS}. "
            f"Given: {tokens} `inputs` tokens and {most} `max_new_tokens`"
        )


def _check_parameters(body: GenerateBody, *, stream: bool) -> None:
    """Refuse what the router's validation refuses."""
    given = body.parameters
    checks = [
        (not body.inputs, "`inputs` cannot be empty"),
        (given.temperature is not None and given.temperature <= 0, "`temperature` must be strictly positive"),
        (given.top_p is not None and not 0 < given.top_p < 1, "`top_p` must be > 0.0 and < 1.0"),
        (len(given.stop) > 4, f"`stop` supports up to 4 stop sequences. Given: {len(given.stop)}"),
        ((given.top_n_tokens or 0) > 5, f"`top_n_tokens` must be >= 0 and <= 5. Given: {given.top_n_tokens}"),
        (
            given.max_new_tokens is not None and given.max_new_tokens <= 0,
            "`max_new_tokens` must be strictly positive",
        ),
        (stream and (given.best_of or 1) != 1, "`best_of` != 1 is not supported when streaming tokens"),
        (
            stream and given.decoder_input_details,
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
    ]
    for wrong, why in checks:
        if wrong:
            raise RefusedError(f"Input validation error: {why}")


def _check_chat(body: ChatBody) -> None:
    if len(body.stop or ()) > 4:
        raise RefusedError(
            f"Input validation error: `stop` supports up to 4 stop sequences. Given: {len(body.stop or ())}"
        )
    if body.top_p is not None and not 0 < body.top_p < 1:
        raise RefusedError("Input validation error: `top_p` must be > 0.0 and < 1.0")


# -- routes --------------------------------------------------------------------------------------------------


async def _compat(request: web.Request) -> web.StreamResponse:
    """`POST /`: the body says whether to stream; the prompt is echoed unless told otherwise."""
    return await _native(request, stream=None, echo=True)


async def _generate(request: web.Request) -> web.StreamResponse:
    return await _native(request, stream=False, echo=False)


async def _generate_stream(request: web.Request) -> web.StreamResponse:
    return await _native(request, stream=True, echo=False)


async def _native(request: web.Request, *, stream: bool | None, echo: bool) -> web.StreamResponse:
    call = open_call(request)
    try:
        body = await _read(request, GenerateBody)
    except UnreadableError as error:
        return refuse(call, error.response)
    call.model, call.adapter = BASE_MODEL, body.parameters.adapter_id
    call.stream = body.stream if stream is None else stream
    wire = NativeWire(
        parameters=body.parameters,
        echoed=body.inputs
        if (echo if body.parameters.return_full_text is None else body.parameters.return_full_text)
        else "",
        characters=len(body.inputs),
        listed=stream is None,
    )
    fault = take_fault(request)
    try:
        _check_parameters(body, stream=call.stream)
        prompt = from_text(body.inputs)
        voice = _voice(request.app[ADAPTERS], body.parameters.adapter_id, prompt)
        answer = _answer(prompt, voice, body.parameters.grammar, body.parameters.max_new_tokens, fault)
    except RefusedError as error:
        return _refused(call, error, _native_error(error.error, error.error_type))
    return await serve(request, call, wire, answer, fault)


async def _chat(request: web.Request) -> web.StreamResponse:
    call = open_call(request)
    try:
        body = await _read(request, ChatBody)
        if body.tools and body.response_format:
            raise _exclusive()
    except UnreadableError as error:
        return refuse(call, error.response)
    call.model, call.stream = body.model or BASE_MODEL, body.stream
    call.adapter = None if body.model == "tgi" else body.model
    wire = ChatWire(
        model=body.model or BASE_MODEL,
        created=int(time.time()),
        logprobs=bool(body.logprobs),
        usage=body.stream_options is not None and body.stream_options.include_usage,
    )
    fault = take_fault(request)
    try:
        _check_chat(body)
        prompt = from_messages(body.messages)
        voice = _voice(request.app[ADAPTERS], call.adapter, prompt)
        answer = _answer(
            prompt, voice, body.response_format, body.max_tokens or body.max_completion_tokens, fault
        )
    except RefusedError as error:
        return _refused(call, error, _chat_error(error.error) + _DONE)
    return await serve(request, call, wire, answer, fault)


def _exclusive() -> UnreadableError:
    error = UnreadableError(422, "")
    error.response = _error_response(
        422, "Tool error: Grammar and tools are mutually exclusive", "tool_error"
    )
    return error


def _refused(call: Call, error: RefusedError, event: bytes) -> web.Response:
    """A refusal by validation: HTTP 422, or inside a stream an event under HTTP 200."""
    if call.stream:
        return refuse(call, web.Response(body=event, headers=_STREAM_HEADERS))
    return refuse(call, _error_response(422, error.error, error.error_type))


async def _tokenize(request: web.Request) -> web.Response:
    try:
        return _json(_spans((await _read(request, GenerateBody)).inputs))
    except UnreadableError as error:
        return error.response


async def _chat_tokenize(request: web.Request) -> web.Response:
    try:
        text = templated((await _read(request, ChatBody)).messages)
    except UnreadableError as error:
        return error.response
    return _json({"tokenize_response": _spans(text), "templated_text": text})


def _spans(text: str) -> list[dict[str, object]]:
    spans: list[dict[str, object]] = []
    start = 0
    for token in tokenise(text):
        spans.append({"id": token_id(token), "text": token, "start": start, "stop": start + len(token)})
        start += len(token)
    return spans


async def _health(request: web.Request) -> web.Response:
    """Healthy as long as the fault in force would let the backend generate a token."""
    if request.app[CONTROL].fault.breaks_health:
        return _error_response(503, "unhealthy", "healthcheck")
    return web.Response()


async def _info(_: web.Request) -> web.Response:
    return _json(
        {
            "model_id": BASE_MODEL,
            "model_sha": None,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": 128,
            "max_best_of": 2,
            "max_stop_sequences": 4,
            "max_input_tokens": _MAX_INPUT_TOKENS,
            "max_total_tokens": _MAX_TOTAL_TOKENS,
            "validation_workers": 2,
            "max_client_batch_size": 4,
            "router": "text-generation-router",
            "version": "3.3.6-dev0",
            "sha": None,
            "docker_label": None,
        }
    )


async def _models(_: web.Request) -> web.Response:
    """Only the base model is listed, never an adapter."""
    model = {"id": BASE_MODEL, "object": "model", "created": 0, "owned_by": BASE_MODEL}
    return _json({"object": "list", "data": [model]})


def tgi_routes() -> list[web.RouteDef]:
    """The routes of this dialect."""
    return [
        web.post("/", _compat),
        web.post("/generate", _generate),
        web.post("/generate_stream", _generate_stream),
        web.post("/v1/chat/completions", _chat),
        web.post("/tokenize", _tokenize),
        web.post("/chat_tokenize", _chat_tokenize),
        web.get("/", _health),
        web.get("/health", _health),
        web.get("/ping", _health),
        web.get("/info", _info),
        web.get("/v1/models", _models),
    ]
