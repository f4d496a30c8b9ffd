"""People in place of agents: taking a conversation over, writing to its visitor, giving it back."""

import hashlib
import html
import json
import re
from datetime import datetime
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from infra.postgres.keepers import Keepers, Kept, Message, NotTaken, OtherWords, Said
from infra.redis.wake import announce
from producers.admission import KeyReused, NotText
from producers.gateway.auth import Operator, Principal, check_conversation
from producers.gateway.documents import error_responses
from producers.gateway.operators import Limit, operator_of
from producers.gateway.parts import Parts, PartsOf
from producers.gateway.problems import ProblemError
from producers.gateway.strict_json import StrictJsonRoute
from producers.gateway.turns import ConversationPath, IdempotencyKey, TurnAccepted, base_url
from schemas.ids import ConversationId, TurnId, new_key, turn_id_for
from schemas.keepers import Keeper, PersonName, TakeoverReason
from schemas.turns import MessageText

router = APIRouter(tags=["takeover"], route_class=StrictJsonRoute)

_log = structlog.stdlib.get_logger()

_UNSHOWN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
"""Characters that no answer may have, as the sanitiser of agents' answers has them."""


class Takeover(BaseModel):
    """Who takes over, and why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"operator": "Ann", "reason": "asked for a person"}]}
    )

    operator: PersonName | None = None
    """The person, as colleagues know them; the id of the key if absent."""
    reason: TakeoverReason = ""


class KeeperState(BaseModel):
    """Who answers a conversation now."""

    conversation_id: str
    keeper: Keeper
    """`human`: no agent answers until the conversation is given back."""
    operator: str | None
    """The person; null while agents answer."""
    reason: str | None
    since: datetime | None
    """Null where it always were agents."""


class TakenConversation(BaseModel):
    """A conversation that a person has."""

    model_config = ConfigDict(from_attributes=True)

    conversation_id: str
    operator: str = Field(validation_alias="name")
    reason: str | None
    since: datetime
    unanswered: int
    """The visitor's messages that came to this person and after which no person wrote."""


class TakeoverPage(BaseModel):
    """Conversations that people have, by id."""

    rows: list[TakenConversation]
    next: str | None
    """`after` of the next page; null on the last one."""


class PersonsMessage(BaseModel):
    """What a person writes to the visitor."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"text": "Hello, this is Ann."}]})

    text: MessageText
    """Plain text: an empty line begins a paragraph, and nothing in it is markup."""
    operator: PersonName | None = None
    """Who writes; whoever took over if absent."""


@router.get(
    "/v1/takeovers",
    operation_id="listTakeovers",
    summary="List the conversations that people have",
    responses=error_responses(401, 403, 422, 503),
)
async def list_takeovers(
    principal: Operator,
    parts: PartsOf,
    after: Annotated[ConversationId | None, Query(description="`next` of the page before this one.")] = None,
    limit: Limit = 50,
) -> TakeoverPage:
    """Return the tenant's conversations in which people have taken the agents' place; needs the scope `operator`."""
    found = await _keepers(parts, principal).taken(after=after or "", limit=limit + 1)
    page = [TakenConversation.model_validate(one) for one in found[:limit]]
    return TakeoverPage(rows=page, next=page[-1].conversation_id if len(found) > limit else None)


@router.get(
    "/v1/conversations/{conversation_id}/takeover",
    operation_id="getTakeover",
    summary="See who answers a conversation",
    responses=error_responses(401, 403, 404, 422, 503),
)
async def get_takeover(conversation_id: ConversationPath, principal: Operator, parts: PartsOf) -> KeeperState:
    """Return who keeps the conversation. How that changed is in the audit, under the conversation's id."""
    check_conversation(principal, conversation_id)
    return _state(conversation_id, await _kept(parts, principal, conversation_id))


@router.post(
    "/v1/conversations/{conversation_id}/takeover",
    operation_id="takeOver",
    summary="Take a conversation over",
    responses=error_responses(400, 401, 403, 404, 408, 413, 422, 503),
)
async def take_over(
    conversation_id: ConversationPath, body: Takeover, principal: Operator, parts: PartsOf
) -> KeeperState:
    """Silence all agents in a conversation until it is given back; needs the scope `operator`.

    Once this has returned, no agent's text becomes visible in a turn of which nothing was visible before. An answer
    that has begun to be visible ends as it would have. Another person who takes over becomes the keeper; repeating it
    changes nothing.
    """
    check_conversation(principal, conversation_id)
    name = body.operator or operator_of(principal)
    await _keepers(parts, principal).take(conversation_id, name=name, reason=body.reason)
    return await _changed(parts, principal, conversation_id, "conversation_taken")


@router.delete(
    "/v1/conversations/{conversation_id}/takeover",
    operation_id="giveBack",
    summary="Give a conversation back to the agents",
    responses=error_responses(401, 403, 404, 422, 503),
)
async def give_back(conversation_id: ConversationPath, principal: Operator, parts: PartsOf) -> KeeperState:
    """Let agents answer again, from the next turn on: they read what the person wrote. Repeating it changes nothing."""
    check_conversation(principal, conversation_id)
    await _keepers(parts, principal).give_back(conversation_id)
    return await _changed(parts, principal, conversation_id, "conversation_given_back")


@router.post(
    "/v1/conversations/{conversation_id}/messages",
    operation_id="writeAsPerson",
    summary="Write to the visitor of a conversation that was taken over",
    status_code=202,
    responses=error_responses(400, 401, 403, 404, 408, 409, 413, 422, 503),
)
async def write_as_person(
    conversation_id: ConversationPath,
    body: PersonsMessage,
    request: Request,
    response: Response,
    principal: Operator,
    parts: PartsOf,
    idempotency_key: IdempotencyKey = None,
) -> TurnAccepted:
    """Make the message a turn of its own, shown once the turns before it have ended; needs the scope `operator`.

    Whoever watches the conversation sees it, agents read it later, and its result is published as of any turn. Sent
    again under the same key it is the same turn.
    """
    check_conversation(principal, conversation_id)
    if not (shown := html_of(body.text)):
        raise NotText("The message has no visible character.")
    turn_id = turn_id_for(principal.tenant, f"said:{conversation_id}:{idempotency_key or new_key()}")
    message = Message(
        turn_id=turn_id,
        html=shown,
        digest=_digest(conversation_id, body.text),
        name=body.operator,
        traceparent=request.headers.get("traceparent"),
    )
    match await _keepers(parts, principal).say(conversation_id, message):
        case None:
            raise _unknown()
        case OtherWords():
            raise KeyReused("This idempotency key already stands for another message.")
        case NotTaken():
            raise ProblemError(
                409,
                "not_taken_over",
                "Agents answer this conversation",
                "Take the conversation over first; whoever writes in it then is a person.",
            )
        case Said():
            await _wake(parts, await _kept(parts, principal, conversation_id))
    events_url = f"{base_url(parts, request)}/v1/turns/{turn_id}/events"
    response.headers["Location"] = events_url.removesuffix("/events")
    return TurnAccepted(turn_id=turn_id, conversation_id=conversation_id, events_url=events_url)


def html_of(text: str) -> str:
    """Return plain text as HTML of the allow-list, in the form the sanitiser writes."""
    plain = html.escape(_UNSHOWN.sub("", text.replace("\r\n", "\n")), quote=False).replace("\xa0", "&nbsp;")
    paragraphs = [part.strip("\n") for part in re.split(r"\n[ \t]*\n", plain)]
    return "".join("<p>" + part.replace("\n", "<br>") + "</p>" for part in paragraphs if part.strip())


def _digest(conversation: str, text: str) -> str:
    return hashlib.sha256(json.dumps([conversation, text]).encode()).hexdigest()


def _keepers(parts: Parts, principal: Principal) -> Keepers:
    return Keepers(parts.engine, tenant=principal.tenant, operator=operator_of(principal))


async def _changed(parts: Parts, principal: Principal, conversation_id: str, event: str) -> KeeperState:
    """Start what waits for its keeper, and tell who that is now."""
    kept = await _kept(parts, principal, conversation_id)
    await _wake(parts, kept)
    _log.info(event, conversation_id=conversation_id, key_id=principal.key_id)
    return _state(conversation_id, kept)


async def _kept(parts: Parts, principal: Principal, conversation_id: str) -> Kept:
    found = await _keepers(parts, principal).load(conversation_id)
    if found is None:
        raise _unknown()
    return found


async def _wake(parts: Parts, kept: Kept) -> None:
    """Have an orchestrator look at the conversation's head at once; without, it looks within a second or two."""
    if kept.head is not None:
        await announce(parts.redis, TurnId(kept.head))


def _state(conversation_id: str, kept: Kept) -> KeeperState:
    return KeeperState(
        conversation_id=conversation_id,
        keeper=kept.keeper,
        operator=kept.name,
        reason=kept.reason or None,
        since=kept.since,
    )


def _unknown() -> ProblemError:
    return ProblemError(404, "unknown_conversation", "There is no such conversation", "It begins with its first turn.")
