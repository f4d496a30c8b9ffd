"""Vectors for what was put into a knowledge base, then the next version of it: what comes after the last `put`."""

import asyncio
from typing import Final

import numpy as np
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.embeddings.embedder import Embedder, EmbeddingFailed
from infra.embeddings.latent import DIMS, Latent, fit, in_context
from infra.embeddings.words import terms
from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.knowledge_spaces import Space, Spaces, Unembedded

AT_A_TIME: Final = 96
"""Pieces that are embedded and stored together; those stored are not embedded again."""

_SMALL: Final = 500
"""Pieces up to which fitting is quick enough to wait for."""

_log = structlog.stdlib.get_logger()


class Indexing:
    """Publishes knowledge bases with the vectors of their pieces."""

    def __init__(self, engine: AsyncEngine, *, embedder: Embedder | None = None) -> None:
        """
        Args:
            engine: the ledger's.
            embedder: makes the vectors; None for the embedded default, fitted on each knowledge base.
        """
        self._knowledge = KnowledgeBase(engine)
        self._spaces = Spaces(engine)
        self._embedder = embedder

    async def publish(self, tenant: str) -> str:
        """Give every piece its vector, then let readers see all that was put; return the snapshot's name.

        Takes seconds for thousands of pieces. Interrupted, it goes on where it was. Readers have the version before,
        with its vectors, until the end.

        Raises:
            EmbeddingFailed: the embedder gave none; nothing is published. What it gave is kept.
            UnknownTenant: there is no such tenant.
            LedgerUnavailable: PostgreSQL does not answer.
        """
        if self._embedder is not None:
            await self._embed(tenant, self._embedder)
        else:
            await self._refit(tenant)
        snapshot = await self._knowledge.publish(tenant)
        await self._spaces.grow(tenant)
        return snapshot

    async def publish_written(self, tenant: str) -> str:
        """Let readers see what was put, with vectors for new written answers only: quick enough for a request.

        An answer whose vector cannot be had is found by its words; `publish` gives it one later.

        Raises:
            UnknownTenant: there is no such tenant.
            LedgerUnavailable: PostgreSQL does not answer.
        """
        current = await self._spaces.current(tenant)
        if current is not None:
            await self._join(tenant, current)
        elif self._embedder is None and await self._spaces.count(tenant) <= _SMALL:
            await self._refit(tenant)
        return await self._knowledge.publish(tenant)

    async def _embed(self, tenant: str, embedder: Embedder) -> None:
        space = await self._spaces.named(tenant, embedder.space)
        while missing := await self._spaces.missing(tenant, space, most=AT_A_TIME):
            vectors = await embedder.embed([piece.whole for piece in missing])
            space = await self._spaces.begin(tenant, embedder.space, kind="endpoint", dims=len(vectors[0]))
            await self._spaces.store(space, [piece.piece_id for piece in missing], vectors)

    async def _join(self, tenant: str, current: Space) -> None:
        """Give new written answers their vectors in the space that serves."""
        missing = await self._spaces.missing(tenant, current.space_id, most=AT_A_TIME, kind="answer")
        if not missing:
            return
        if current.kind == "fitted":
            said = [_terms(piece) for piece in missing]
            axes = await self._spaces.axes(current.space_id, sorted({term for one in said for term in one}))
            numbers = {term: number for number, term in enumerate(axes)}
            matrix = np.array(list(axes.values())).reshape(len(axes), current.dims)
            latent = Latent(current.name, numbers, matrix)
            vectors = [latent.vector(one) for one in said]
            await self._spaces.store(current.space_id, [piece.piece_id for piece in missing], vectors)
        elif self._embedder is not None and self._embedder.space == current.name:
            try:
                vectors = await self._embedder.embed([piece.whole for piece in missing])
            except EmbeddingFailed as error:
                _log.warning("answer_not_embedded", tenant=tenant, error=str(error))
                return
            await self._spaces.store(current.space_id, [piece.piece_id for piece in missing], vectors)

    async def _refit(self, tenant: str) -> None:
        pieces: list[Unembedded] = []
        while part := await self._spaces.missing(tenant, None, after=pieces[-1].piece_id if pieces else 0):
            pieces.extend(part)
        if not pieces:
            return
        said = [_terms(piece) for piece in pieces]
        documents = [_document(piece) for piece in pieces]
        latent, vectors = await asyncio.to_thread(_fitted, said, documents)
        space = await self._spaces.begin(tenant, latent.name, kind="fitted", dims=DIMS)
        await self._spaces.store_axes(space, list(zip(latent.terms, latent.axes.tolist(), strict=True)))
        for start in range(0, len(pieces), AT_A_TIME):
            part = slice(start, start + AT_A_TIME)
            await self._spaces.store(space, [piece.piece_id for piece in pieces[part]], vectors[part])


def _fitted(said: list[list[str]], documents: list[int]) -> tuple[Latent, list[list[float]]]:
    latent = fit(said, documents)
    return latent, in_context([latent.vector(one) for one in said], documents)


def _document(piece: Unembedded) -> int:
    """Return the document that a piece leans to; a number of its own for an answer, which says all there is to say."""
    return -piece.piece_id if piece.kind == "answer" else piece.document_id


def _terms(piece: Unembedded) -> list[str]:
    return terms(piece.whole, piece.language)
