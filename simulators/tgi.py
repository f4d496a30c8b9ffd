"""Text Generation Inference 3.3, native and chat routes."""

import time

from aiohttp import web

from simulators.answers import Answer, compose, fitting, token_id, tokenise
from simulators.control import CONTROL, Fault
from simulators.dialogues import Voice
from simulators.journal import Call
from simulators.jsontext import json_response
from simulators.prompts import Prompt, from_messages, from_text, templated
from simulators.serving import open_call, refuse, serve
from simulators.shapes import DEFAULT_SCHEMA, Schema
from simulators.tgi_bodies import (
    MAX_INPUT_TOKENS,
    MAX_TOTAL_TOKENS,
    Body,
    ChatBody,
    GenerateBody,
    Grammar,
    JsonGrammar,
    JsonSchemaGrammar,
    RefusedError,
    RegexGrammar,
    UnreadableError,
    check_chat,
    check_length,
    check_parameters,
    read_body,
)
from simulators.tgi_wires import (
    DONE,
    STREAM_HEADERS,
    ChatWire,
    NativeWire,
    chat_error,
    error_response,
    native_error,
)

BASE_MODEL = "Qwen/Qwen2.5-14B-Instruct"
ADAPTERS = web.AppKey("adapters", frozenset[str])


async def _compat(request: web.Request) -> web.StreamResponse:
    """`POST /`: the body says whether to stream; the prompt is echoed unless told otherwise."""
    return await _native(request, stream=None, echo=True)


async def _generate(request: web.Request) -> web.StreamResponse:
    return await _native(request, stream=False, echo=False)


async def _generate_stream(request: web.Request) -> web.StreamResponse:
    return await _native(request, stream=True, echo=False)


async def _native(request: web.Request, *, stream: bool | None, echo: bool) -> web.StreamResponse:
    text = await _text(request)
    call = open_call(request)
    try:
        body = read_body(request.content_type, text, GenerateBody)
    except UnreadableError as error:
        return refuse(call, _unread(error))
    call.model, call.adapter = BASE_MODEL, body.parameters.adapter_id
    call.stream = body.stream if stream is None else stream
    try:
        answer = _native_answer(request, body, stream=call.stream)
    except RefusedError as error:
        return _refused(call, error, native_error(error.error, error.error_type))
    full = body.parameters.return_full_text
    wire = NativeWire(
        parameters=body.parameters,
        echoed=body.inputs if (echo if full is None else full) else "",
        characters=len(body.inputs),
        listed=stream is None,
    )
    return await serve(request, call, wire, answer)


async def _chat(request: web.Request) -> web.StreamResponse:
    text = await _text(request)
    call = open_call(request)
    try:
        body = read_body(request.content_type, text, ChatBody)
    except UnreadableError as error:
        return refuse(call, _unread(error))
    call.model, call.stream = body.model or BASE_MODEL, body.stream
    call.adapter = None if body.model == "tgi" else body.model
    try:
        answer = _chat_answer(request, body, call.adapter)
    except RefusedError as error:
        return _refused(call, error, chat_error(error.error) + DONE)
    wire = ChatWire(
        model=body.model or BASE_MODEL,
        created=int(time.time()),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        usage=body.stream_options is not None and body.stream_options.include_usage,
    )
    return await serve(request, call, wire, answer)


async def _text(request: web.Request) -> bytes:
    """The body's bytes; one that is too large is answered in the words of the router's framework."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        error.text = "Failed to buffer the request body: length limit exceeded"
        raise


def _unread(error: UnreadableError) -> web.Response:
    return web.Response(status=error.status, text=error.text)


def _refused(call: Call, error: RefusedError, event: bytes) -> web.Response:
    """A refusal by validation: HTTP 422, or inside a stream an event under HTTP 200."""
    if call.stream and not error.early:
        return refuse(call, web.Response(body=event, headers=STREAM_HEADERS))
    return refuse(call, error_response(422, error.error, error.error_type))


def _native_answer(request: web.Request, body: GenerateBody, *, stream: bool) -> Answer:
    given = body.parameters
    check_parameters(body, stream=stream)
    prompt = from_text(body.inputs)
    voice = _voice(request.app[ADAPTERS], given.adapter_id, prompt)
    return _answer(prompt, voice, given.grammar, given.max_new_tokens, request.app[CONTROL].fault)


def _chat_answer(request: web.Request, body: ChatBody, adapter: str | None) -> Answer:
    check_chat(body)
    prompt = from_messages(body.messages)
    voice = _voice(request.app[ADAPTERS], adapter, prompt)
    most = body.max_tokens or body.max_completion_tokens
    return _answer(prompt, voice, body.response_format, most, request.app[CONTROL].fault)


def _voice(adapters: frozenset[str], adapter: str | None, prompt: Prompt) -> Voice:
    """Who answers: an adapter that is loaded, else the untuned base model, silently."""
    if adapter not in adapters:
        return "base"
    return "discovery" if (prompt.agent or "discovery") == "discovery" else "answer"


def _answer(prompt: Prompt, voice: Voice, grammar: Grammar | None, most: int | None, fault: Fault) -> Answer:
    """The answer under `fault`; raises `RefusedError` where the router validates."""
    check_length(prompt, most)
    schema: Schema | None = None
    if isinstance(grammar, RegexGrammar):
        answer = _matching(grammar, prompt, voice)
    else:
        schema = _schema(grammar) or (DEFAULT_SCHEMA if prompt.wants_json else None)
        answer = compose(prompt, voice=voice, schema=schema, length=fault.tokens)
    return fault.bend(answer, prompt, schema).limited(most)


def _matching(grammar: RegexGrammar, prompt: Prompt, voice: Voice) -> Answer:
    answer = fitting(grammar.value, prompt, voice=voice)
    if answer is None:
        raise RefusedError("Input validation error: grammar is not valid: the simulator knows no text that matches it")
    return answer


def _schema(grammar: JsonGrammar | JsonSchemaGrammar | None) -> Schema | None:
    if grammar is None:
        return None
    schema = grammar.value.schema_ if isinstance(grammar, JsonSchemaGrammar) else grammar.value
    if not isinstance(schema, dict) or "properties" not in schema:
        raise RefusedError("Input validation error: grammar is not valid: Grammar must have a 'properties' field")
    return schema


async def _tokenize(request: web.Request) -> web.Response:
    body = await _body(request, GenerateBody)
    return body if isinstance(body, web.Response) else json_response(_spans(body.inputs))


async def _chat_tokenize(request: web.Request) -> web.Response:
    body = await _body(request, ChatBody)
    if isinstance(body, web.Response):
        return body
    text = templated(body.messages)
    return json_response({"tokenize_response": _spans(text), "templated_text": text})


async def _body(request: web.Request, shape: type[Body]) -> Body | web.Response:
    try:
        return read_body(request.content_type, await _text(request), shape)
    except UnreadableError as error:
        return _unread(error)


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
        return error_response(503, "unhealthy", "healthcheck")
    return web.Response()


async def _info(_: web.Request) -> web.Response:
    return json_response(
        {
            "model_id": BASE_MODEL,
            "model_sha": None,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": 128,
            "max_best_of": 2,
            "max_stop_sequences": 4,
            "max_input_tokens": MAX_INPUT_TOKENS,
            "max_total_tokens": MAX_TOTAL_TOKENS,
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
    return json_response({"object": "list", "data": [model]})


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
