"""The transcript of a conversation."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel

from infra.postgres.views import TurnView, load_transcript
from producers.gateway.auth import Authenticated, check_conversation
from producers.gateway.documents import error_responses
from producers.gateway.parts import PartsOf
from producers.gateway.problems import ProblemError
from producers.gateway.strict_json import StrictJsonRoute
from producers.gateway.turns import Answer, ConversationPath
from schemas.turns import TurnState

router = APIRouter(tags=["conversations"], route_class=StrictJsonRoute)


class TranscriptTurn(BaseModel):
    """One message and what was answered."""

    turn_id: str
    seq: int
    channel: str
    text: str
    """What the visitor wrote."""
    state: TurnState
    agent: str | None
    answer: Answer | None
    """What was shown, once the turn has ended."""
    created_at: datetime
    done_at: datetime | None
    answered_in: str | None
    """The earlier turn whose answer is also this one's."""
    said_by: str | None
    """The person who wrote it to the visitor, unasked; `text` is empty then."""


class Transcript(BaseModel):
    """A conversation's latest turns, oldest first."""

    conversation_id: str
    turns: list[TranscriptTurn]


@router.get(
    "/v1/conversations/{conversation_id}",
    operation_id="getConversation",
    summary="Read a conversation",
    responses=error_responses(401, 403, 404, 422, 503),
)
async def get_conversation(conversation_id: ConversationPath, principal: Authenticated, parts: PartsOf) -> Transcript:
    """Return the latest 200 turns. A conversation exists from its first recorded turn on."""
    check_conversation(principal, conversation_id)
    turns = await load_transcript(parts.engine, tenant=principal.tenant, conversation=conversation_id)
    if turns is None:
        raise ProblemError(
            404, "unknown_conversation", "There is no such conversation", "It begins with its first turn."
        )
    return Transcript(conversation_id=conversation_id, turns=[_transcribed(view) for view in turns])


def _transcribed(view: TurnView) -> TranscriptTurn:
    return TranscriptTurn(
        turn_id=view.turn_id,
        seq=view.seq,
        channel=view.channel,
        text=view.input_text,
        state=view.state,
        agent=view.agent,
        answer=Answer(html=view.html) if view.done else None,
        created_at=view.created_at,
        done_at=view.done_at,
        answered_in=view.answered_in,
        said_by=view.said_by,
    )
