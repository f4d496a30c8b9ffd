"""Chat completions for any OpenAI client.

The last user message becomes a turn, the messages before it its history. A request that names no conversation is
a new one. `user` names a person, not a conversation, and is ignored.
"""

import json
import re
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Header
from pydantic import ValidationError
from starlette.requests import Request

from infra.postgres.statements import LedgerUnavailable
from infra.postgres.views import load_ledger
from infra.telemetry.metrics import FRAMES_SENT, WATCHERS
from producers.gateway.auth import Authenticated, Principal, Submitter, check_conversation
from producers.gateway.documents import error_responses, event_stream
from producers.gateway.openai_messages import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionRequest,
    Choice,
    FairleadExtra,
    Model,
    ModelList,
    Usage,
    split_messages,
)
from producers.gateway.parts import Parts, PartsOf
from producers.gateway.problems import ProblemError, sentences
from producers.gateway.streams import EventStream, events
from producers.gateway.strict_json import StrictJsonRoute
from producers.gateway.turns import IdempotencyKey
from producers.gateway.watch import FROM_THE_START, Located, Telling
from schemas.frames import MODEL_NAME, WireFrame
from schemas.ids import CONVERSATION_PATTERN, TurnId
from schemas.turns import CHANNEL_OPENAI, HistoryMessage, TurnRequest

RELEASED: Final = 1_767_225_600
"""When the model appeared, in Unix seconds. OpenAI's shape wants a date."""

_CONVERSATION = re.compile(CONVERSATION_PATTERN)

router = APIRouter(tags=["openai"], route_class=StrictJsonRoute)

ConversationHeader = Annotated[
    str | None,
    Header(
        alias="X-Fairlead-Conversation",
        pattern=CONVERSATION_PATTERN,
        description="The conversation to go on with; `metadata.conversation_id` does the same.",
    ),
]


@router.post(
    "/v1/chat/completions",
    operation_id="createChatCompletion",
    summary="Answer a chat as OpenAI does",
    response_model=ChatCompletion,
    responses={
        200: {**event_stream("The whole answer, or its frames when `stream` is true."), "model": ChatCompletion},
        **error_responses(400, 401, 403, 408, 409, 413, 422, 429, 503, 504, openai=True),
    },
)
async def create_chat_completion(
    body: ChatCompletionRequest,
    request: Request,
    principal: Submitter,
    parts: PartsOf,
    conversation: ConversationHeader = None,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Answer the last user message, whole or streamed."""
    turn = await _submit(parts, principal, body, request, _conversation(conversation, body, principal), idempotency_key)
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        return EventStream(_streamed(parts, turn, include_usage=usage), door="openai")
    return await _whole(parts, turn)


@router.get(
    "/v1/models",
    operation_id="listModels",
    summary="List the models a client may name",
    responses=error_responses(401, 503, openai=True),
)
async def list_models(principal: Authenticated) -> ModelList:
    """Return the one model: which model really answers is this installation's policy."""
    return ModelList(data=[Model(id=MODEL_NAME, created=RELEASED, owned_by=principal.tenant)])


def _conversation(header: str | None, body: ChatCompletionRequest, principal: Principal) -> str:
    named = header or (body.metadata or {}).get("conversation_id") or principal.conversation
    if named is None:
        return f"openai-{secrets.token_hex(16)}"
    if not isinstance(named, str) or not _CONVERSATION.fullmatch(named):
        raise _unfit("metadata.conversation_id is not a conversation's id")
    check_conversation(principal, named)
    return named


async def _submit(
    parts: Parts,
    principal: Principal,
    body: ChatCompletionRequest,
    request: Request,
    conversation: str,
    idempotency_key: str | None,
) -> Located:
    turn_request, history = _turn_of(body)
    accepted = await parts.admission.submit(
        principal.tenant,
        conversation,
        turn_request,
        idempotency_key=principal.key_for(idempotency_key) if idempotency_key else None,
        history=history,
        traceparent=request.headers.get("traceparent"),
        visitor=principal.visitor,
        door="openai",
    )
    return Located(accepted.turn_id, principal.tenant, conversation)


def _turn_of(body: ChatCompletionRequest) -> tuple[TurnRequest, list[HistoryMessage]]:
    try:
        text, history = split_messages(body.messages)
        return TurnRequest(text=text, channel=CHANNEL_OPENAI), history
    except ValidationError as error:
        found = cast("list[Mapping[str, object]]", error.errors(include_input=False, include_url=False))
        raise _unfit(f"a message does not fit: {sentences(found)}") from error
    except ValueError as error:
        raise _unfit(str(error)) from error


async def _whole(parts: Parts, turn: Located) -> ChatCompletion:
    """Wait for the terminal frame and return the answer in one piece."""
    frames: list[WireFrame] = []
    # A limit of the watcher's own, not a cancellation: on Python 3.11 a write to Redis may swallow one.
    watching = parts.watcher.batches(turn, Telling(FROM_THE_START), within=parts.completion_seconds)
    with WATCHERS.labels("openai").track_inprogress():
        async with aclosing(watching) as batches:
            async for batch in batches:
                frames.extend(batch)
    if not frames or not frames[-1].terminal:
        raise _still_running(turn)
    FRAMES_SENT.labels("openai").inc(len(frames))
    return _completion(turn, frames, await _usage(parts, turn.turn_id))


def _completion(turn: Located, frames: list[WireFrame], usage: Usage) -> ChatCompletion:
    chunks = [_chunk(frame) for frame in frames]
    content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    return ChatCompletion(
        id=turn.turn_id,
        created=chunks[-1]["created"],
        model=MODEL_NAME,
        choices=[
            Choice(message=AssistantMessage(content=content), finish_reason=chunks[-1]["choices"][0]["finish_reason"])
        ],
        usage=usage,
        fairlead=FairleadExtra(
            turn_id=turn.turn_id,
            conversation_id=turn.conversation_id,
            seq=frames[-1].seq,
            phase=frames[-1].phase,
        ),
    )


def _streamed(parts: Parts, turn: Located, *, include_usage: bool) -> AsyncGenerator[bytes]:
    """Yield the frames; before `[DONE]` the usage, where it was asked for."""

    async def usage_chunk(last: WireFrame) -> bytes:
        usage = await _usage(parts, turn.turn_id)
        chunk = _chunk(last)
        chunk.pop("fairlead")
        chunk.update(choices=[], usage=usage.model_dump())
        return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n".encode()

    return events(parts, turn, FROM_THE_START, door="openai", before_done=usage_chunk if include_usage else None)


def _chunk(frame: WireFrame) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(frame.json))


async def _usage(parts: Parts, turn_id: TurnId) -> Usage:
    """Return the tokens the ledger counted; zeros when it does not answer or the model servers did not tell."""
    try:
        attempts = (await load_ledger(parts.engine, turn_id)).attempts
    except LedgerUnavailable:
        attempts = ()
    prompt = sum(attempt.input_tokens or 0 for attempt in attempts)
    completion = sum(attempt.output_tokens or 0 for attempt in attempts)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def _unfit(detail: str) -> ProblemError:
    return ProblemError(422, "invalid_request", "The request does not fit", detail)


def _still_running(turn: Located) -> ProblemError:
    return ProblemError(
        504,
        "still_running",
        "The turn is still running",
        f"It will end all the same; read it at /v1/turns/{turn.turn_id}, or stream next time.",
        turn_id=turn.turn_id,
    )
