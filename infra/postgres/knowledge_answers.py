"""Written questions and answers: added, corrected and removed by operators, each with its row of the audit.

They are documents of a knowledge base, known by `answer:` and their id. One that corrects a turn's answer has the
turn's id, so that correcting a turn again replaces it.
"""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.audit import AUDIT_SQL, audit_values
from infra.postgres.knowledge import put_document, remove_document
from infra.postgres.statements import row, rows, transaction
from schemas.knowledge import Document, Piece

PREFIX: Final = "answer:"

_AUDIT: Final = text(AUDIT_SQL)
_LIST: Final = """
SELECT substr(d.source, 8) AS answer_id, d.title AS question, p.text AS answer, d.turn_id::text AS turn_id, d.added_at
FROM knowledge_documents d JOIN knowledge_places o USING (document_id) JOIN knowledge_pieces p USING (piece_id)
WHERE d.tenant_id = :tenant AND d.until_version IS NULL AND d.kind = 'answer' AND d.source LIKE 'answer:%'
"""
_ALL: Final = text(f"{_LIST} ORDER BY d.added_at DESC, d.document_id DESC LIMIT :most")
_ONE: Final = text(f"{_LIST} AND d.source = :source")


@dataclass(frozen=True, slots=True)
class Written:
    """A question with the answer that somebody wrote to it."""

    answer_id: str
    question: str
    answer: str
    turn_id: str | None
    """The turn whose answer it corrects."""
    added_at: datetime


class Answers:
    """The written answers of tenants. What changes is seen by readers once it is published."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def listing(self, tenant: str, *, most: int = 200) -> list[Written]:
        """Return written answers, latest first."""
        return [Written(**dict(one)) for one in await rows(self._engine, _ALL, {"tenant": tenant, "most": most})]

    async def read(self, tenant: str, answer_id: str) -> Written | None:
        """Return one; None if there is none of this id."""
        found = await row(self._engine, _ONE, {"tenant": tenant, "source": PREFIX + answer_id})
        return Written(**dict(found)) if found else None

    async def write(
        self,
        tenant: str,
        question: str,
        answer: str,
        *,
        operator: str,
        answer_id: str | None = None,
        turn: str | None = None,
    ) -> str:
        """Write an answer, over the one of this id if one is given; return its id.

        Args:
            tenant: whose.
            question: as a visitor would ask it.
            answer: what agents then know.
            operator: id of the key that asked.
            answer_id: of the one to correct, or to make.
            turn: whose answer it corrects.

        Raises:
            UnknownTenant: there is no such tenant.
            LedgerUnavailable: PostgreSQL does not answer; write it again.
        """
        wanted = answer_id or turn or str(uuid.uuid4())
        digest = hashlib.sha256(f"{question}\0{answer}".encode()).hexdigest()
        document = Document(
            source=PREFIX + wanted, title=question, kind="answer", sha256=digest, pieces=(Piece(text=answer),)
        )
        async with transaction(self._engine) as connection:
            done = await put_document(connection, tenant, document, turn=turn)
            verb = "answer.correct" if turn or done.state == "replaced" else "answer.add"
            detail = {"sha256": digest, "turn": turn}
            told = audit_values(tenant=tenant, operator=operator, verb=verb, subject=wanted, detail=detail)
            await connection.execute(_AUDIT, told)
        return wanted

    async def remove(self, tenant: str, answer_id: str, *, operator: str) -> bool:
        """Take an answer out; tell whether it was there."""
        async with transaction(self._engine) as connection:
            found = await remove_document(connection, tenant, PREFIX + answer_id)
            if found:
                told = audit_values(
                    tenant=tenant, operator=operator, verb="answer.remove", subject=answer_id, detail={}
                )
                await connection.execute(_AUDIT, told)
            return found
