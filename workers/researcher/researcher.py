"""What the knowledge base says to a message: never late, never an exception."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.embeddings.embedder import Embedder, EmbeddingFailed
from infra.embeddings.words import MOST_CHARS, asked_terms
from infra.postgres.knowledge_search import Base, Hit, KnowledgeSearch
from infra.postgres.statements import LedgerRefuses, LedgerUnavailable
from schemas.knowledge import Passage, Retrieved
from schemas.knowledge_policy import Certainty, KnowledgePolicy

_TENANTS: Final = 10_000
"""Whose knowledge base is remembered at most."""

_CERTAIN: Final = 3
"""Passages of which the best one decides how sure the answer is."""

_ABOUT: Final = 0.3
"""Share of what a message tells that a written answer has to have: else it is about something else."""

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class _Remembered:
    base: Base | None
    at: float = field(default_factory=time.monotonic)


class Researcher:
    """Looks messages up in the knowledge bases of their tenants."""

    def __init__(self, engine: AsyncEngine, *, policy: KnowledgePolicy, embedder: Embedder | None = None) -> None:
        """
        Args:
            engine: the ledger's.
            policy: deadline, number of passages, certainty.
            embedder: of knowledge bases whose vectors come from an endpoint; those are else searched by words alone.
        """
        self._search = KnowledgeSearch(engine)
        self._policy = policy
        self._embedder = embedder
        self._bases: OrderedDict[str, _Remembered] = OrderedDict()
        self._abandoned: set[asyncio.Task[Retrieved]] = set()

    async def retrieve(self, tenant: str, text: str, *, language: str) -> Retrieved:
        """Return what a tenant's knowledge base has for a message, within the policy's deadline.

        Args:
            tenant: whose knowledge base.
            text: what the visitor wrote; untrusted, and not read beyond `MOST_CHARS`.
            language: of the message, two or three letters: of equals, what is written in it goes first.

        Returns:
            State `late` or `failed` where nobody knows; no exception, except that of being cancelled.
        """
        asking = asyncio.create_task(self._retrieve(tenant, text, language), name="retrieve")
        try:
            done, _ = await asyncio.wait({asking}, timeout=self._policy.deadline)
        except asyncio.CancelledError:
            self._abandon(asking)
            raise
        if not done:
            # Not waited for: an answer that hangs would hang its cancellation as well.
            self._abandon(asking)
            _log.warning("retrieval_late", tenant=tenant, seconds=self._policy.deadline)
            return Retrieved(state="late")
        return asking.result()

    def _abandon(self, asking: asyncio.Task[Retrieved]) -> None:
        self._abandoned.add(asking)
        asking.add_done_callback(self._abandoned.discard)
        asking.cancel()

    async def _retrieve(self, tenant: str, text: str, language: str) -> Retrieved:
        try:
            base = await self._base(tenant)
            if base is None or not base.pieces:
                return Retrieved()
            return await self._found(tenant, base, text[:MOST_CHARS], language)
        except (LedgerUnavailable, LedgerRefuses) as error:
            _log.warning("retrieval_failed", tenant=tenant, error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was: the turn goes on, and says that nobody knows
            _log.exception("retrieval_failed", tenant=tenant, error=type(error).__name__)
        return Retrieved(state="failed")

    async def _base(self, tenant: str) -> Base | None:
        known = self._bases.get(tenant)
        if known is not None and time.monotonic() - known.at < self._policy.remember:
            return known.base
        base = await self._search.base(tenant)
        self._bases[tenant] = _Remembered(base)
        self._bases.move_to_end(tenant)
        if len(self._bases) > _TENANTS:
            self._bases.popitem(last=False)
        return base

    async def _found(self, tenant: str, base: Base, text: str, language: str) -> Retrieved:
        terms = asked_terms(text, base.languages)
        vector = await self._vector(base, text)
        found = await self._search.search(
            tenant,
            terms,
            most=2 * self._policy.passages,
            language=language,
            space=base.space if vector is not None else None,
            vector=vector,
        )
        hits = self._ordered(found.hits, {term for _, term in terms}, base)
        if not hits:
            return Retrieved(state="nothing", snapshot=found.snapshot)
        score = self._certainty(base, hits)
        return Retrieved(
            state="found",
            passages=tuple(_passage(hit) for hit in hits[: self._policy.passages]),
            answerable=score >= self._policy.threshold,
            score=score,
            snapshot=found.snapshot,
        )

    async def _vector(self, base: Base, text: str) -> list[float] | None:
        """Return a question's vector where it has to be brought; None where the words have to do."""
        if base.fitted or self._embedder is None or base.space != self._embedder.space:
            return None
        try:
            async with asyncio.timeout(self._policy.deadline / 2):
                return (await self._embedder.embed([text]))[0]
        except (EmbeddingFailed, TimeoutError) as error:
            _log.warning("question_not_embedded", error=str(error) or "too slow")
            return None

    def _ordered(self, hits: tuple[Hit, ...], asked: set[str], base: Base) -> list[Hit]:
        """Return the hits, those that somebody wrote for this very question first."""
        written = [hit for hit in hits if self._fits(hit, asked, base)]
        return [*written, *(hit for hit in hits if hit not in written)]

    def _fits(self, hit: Hit, asked: set[str], base: Base) -> bool:
        if hit.kind != "answer" or hit.covered < _ABOUT:
            return False
        title = {number: False for number, _ in asked_terms(hit.title, base.languages)}
        for number, term in asked_terms(hit.title, base.languages):
            title[number] |= term in asked
        return sum(title.values()) >= self._policy.alike * len(title)

    def _certainty(self, base: Base, hits: list[Hit]) -> float:
        covered = max(hit.covered for hit in hits[:_CERTAIN])
        near = [hit.nearness for hit in hits if hit.nearness is not None]
        return self._calibrated(base, near).of(covered, max(near, default=0.0))

    def _calibrated(self, base: Base, near: list[float]) -> Certainty:
        if not near:
            return self._policy.words
        return self._policy.fitted if base.fitted else self._policy.endpoint


def _passage(hit: Hit) -> Passage:
    return Passage(
        passage_id=str(hit.piece_id),
        source=hit.source,
        title=hit.title,
        heading=hit.heading,
        text=hit.text,
        score=hit.score,
        kind=hit.kind,
        language=hit.language,
    )
