"""A tenant's knowledge base, for operators: what is in it, and answers that somebody writes or corrects."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.knowledge_answers import Answers
from infra.postgres.knowledge_indexing import Indexing
from infra.postgres.views import load_turn
from producers.gateway.auth import Operator, Principal
from producers.gateway.documents import error_responses
from producers.gateway.operators import UUID_PATTERN, operator_of, unknown
from producers.gateway.parts import Parts, PartsOf
from producers.gateway.strict_json import StrictJsonRoute
from schemas.ids import TurnId
from schemas.knowledge import PassageKind

router = APIRouter(tags=["knowledge"], route_class=StrictJsonRoute)

Said = Annotated[str, Field(min_length=1, max_length=2_000, pattern=r"^[^\x00]*\S[^\x00]*$")]
Answered = Annotated[str, Field(min_length=1, max_length=8_000, pattern=r"^[^\x00]*\S[^\x00]*$")]
AnswerPath = Annotated[str, Path(pattern=UUID_PATTERN, description="An answer's id.")]
TurnPath = Annotated[str, Path(pattern=UUID_PATTERN, description="A turn's id.")]


class AnswerText(BaseModel):
    """A question as a visitor would ask it, and what agents are to know then."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"question": "Q?", "answer": "A."}]})

    question: Said
    answer: Answered


class Correction(BaseModel):
    """What a turn should have been answered."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"answer": "Thirty days."}]})

    answer: Answered
    question: Said | None = None
    """What the visitor wrote, if absent."""


class WrittenAnswer(BaseModel):
    """A written answer, and the snapshot of the knowledge base that has it."""

    answer_id: str
    question: str
    answer: str
    turn_id: str | None
    """The turn whose answer it corrects."""
    snapshot: str


class ListedAnswer(BaseModel):
    """A written answer."""

    model_config = ConfigDict(from_attributes=True)

    answer_id: str
    question: str
    answer: str
    turn_id: str | None
    added_at: datetime


class ListedAnswers(BaseModel):
    """The latest written answers, latest first."""

    answers: list[ListedAnswer]


class RemovedAnswer(BaseModel):
    """The snapshot that has the answer no more."""

    answer_id: str
    snapshot: str


class KnowledgeDocument(BaseModel):
    """A document of the knowledge base."""

    model_config = ConfigDict(from_attributes=True)

    source: str
    """As it was added: a path, a URL, or `answer:` and an answer's id."""
    title: str
    kind: PassageKind
    pieces: int
    sha256: str
    language: str
    added_at: datetime
    published: bool
    """Whether agents read it already."""


class KnowledgeDocuments(BaseModel):
    """Every document, by source."""

    documents: list[KnowledgeDocument]


@router.get(
    "/v1/knowledge/documents",
    operation_id="listKnowledge",
    summary="List what the knowledge base holds",
    responses=error_responses(401, 403, 503),
)
async def list_knowledge(principal: Operator, parts: PartsOf) -> KnowledgeDocuments:
    """Return the tenant's documents and written answers, without their text. Needs the scope `operator`."""
    found = await KnowledgeBase(parts.engine).listing(principal.tenant)
    return KnowledgeDocuments(documents=[KnowledgeDocument.model_validate(one) for one in found])


@router.get(
    "/v1/knowledge/answers",
    operation_id="listAnswers",
    summary="List written answers",
    responses=error_responses(401, 403, 503),
)
async def list_answers(principal: Operator, parts: PartsOf) -> ListedAnswers:
    """Return the tenant's latest 200 written answers. Needs the scope `operator`."""
    found = await Answers(parts.engine).listing(principal.tenant)
    return ListedAnswers(answers=[ListedAnswer.model_validate(one) for one in found])


@router.post(
    "/v1/knowledge/answers",
    operation_id="addAnswer",
    summary="Write an answer that wins over documents",
    status_code=201,
    responses=error_responses(400, 401, 403, 408, 413, 422, 503),
)
async def add_answer(body: AnswerText, principal: Operator, parts: PartsOf) -> WrittenAnswer:
    """Add a question and its answer; agents know it within seconds. Who did it is in the audit."""
    return await _write(parts, principal, body.question, body.answer)


@router.put(
    "/v1/knowledge/answers/{answer_id}",
    operation_id="correctAnswer",
    summary="Correct a written answer",
    responses=error_responses(400, 401, 403, 404, 408, 413, 422, 503),
)
async def put_answer(answer_id: AnswerPath, body: AnswerText, principal: Operator, parts: PartsOf) -> WrittenAnswer:
    """Replace question and answer; 404 if there is none of this id."""
    before = await Answers(parts.engine).read(principal.tenant, answer_id)
    if before is None:
        raise unknown("answer")
    return await _write(parts, principal, body.question, body.answer, answer_id=answer_id, turn=before.turn_id)


@router.delete(
    "/v1/knowledge/answers/{answer_id}",
    operation_id="removeAnswer",
    summary="Remove a written answer",
    responses=error_responses(401, 403, 404, 422, 503),
)
async def remove_answer(answer_id: AnswerPath, principal: Operator, parts: PartsOf) -> RemovedAnswer:
    """Take an answer out of the knowledge base; 404 if there is none of this id."""
    if not await Answers(parts.engine).remove(principal.tenant, answer_id, operator=operator_of(principal)):
        raise unknown("answer")
    return RemovedAnswer(answer_id=answer_id, snapshot=await _published(parts, principal))


@router.post(
    "/v1/turns/{turn_id}/correction",
    operation_id="correctTurn",
    summary="Say what a turn should have been answered",
    responses=error_responses(400, 401, 403, 404, 408, 413, 422, 503),
)
async def correct_turn(turn_id: TurnPath, body: Correction, principal: Operator, parts: PartsOf) -> WrittenAnswer:
    """Make the right answer a written one, under what the visitor asked. The turn itself stays as it was.

    A turn corrected again has its last correction.
    """
    turn = await load_turn(parts.engine, TurnId(turn_id))
    if turn is None or turn.tenant_id != principal.tenant:
        raise unknown("turn")
    question = body.question or turn.input_text[:2_000]
    return await _write(parts, principal, question, body.answer, answer_id=turn_id, turn=turn_id)


async def _write(
    parts: Parts,
    principal: Principal,
    question: str,
    answer: str,
    *,
    answer_id: str | None = None,
    turn: str | None = None,
) -> WrittenAnswer:
    written = await Answers(parts.engine).write(
        principal.tenant, question, answer, operator=operator_of(principal), answer_id=answer_id, turn=turn
    )
    snapshot = await _published(parts, principal)
    return WrittenAnswer(answer_id=written, question=question, answer=answer, turn_id=turn, snapshot=snapshot)


async def _published(parts: Parts, principal: Principal) -> str:
    return await Indexing(parts.engine, embedder=parts.embedder).publish_written(principal.tenant)
