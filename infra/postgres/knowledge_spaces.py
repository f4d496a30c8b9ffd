"""The vector spaces of a knowledge base: which pieces lack a vector, and the terms a fitted space stands on.

A space serves once `KnowledgeBase.publish` chose it: the newest that has every piece. Until then the one before does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from infra.postgres.statements import row, rows, transaction
from schemas.knowledge import PassageKind

SpaceKind = Literal["fitted", "endpoint"]

GRAPH_FROM: Final = 20_000
"""Pieces from which vectors are searched in the HNSW graph. Below, looking at each is as quick and misses none."""

_AT_A_TIME: Final = 500

_ENSURE: Final = text("""
INSERT INTO knowledge_spaces AS s (tenant_id, name, kind, dims) VALUES (:tenant, :name, :kind, :dims)
ON CONFLICT (tenant_id, name) DO UPDATE SET name = s.name
RETURNING space_id, dims
""")
_CURRENT: Final = text("""
SELECT s.space_id, s.name, s.kind, s.dims FROM knowledge_bases b JOIN knowledge_spaces s USING (space_id)
WHERE b.tenant_id = :tenant
""")
_NAMED: Final = text("SELECT space_id FROM knowledge_spaces WHERE tenant_id = :tenant AND name = :name")
_MISSING: Final = text("""
SELECT p.piece_id, p.title, p.heading, p.text, p.kind, d.document_id, d.language FROM knowledge_pieces p
CROSS JOIN LATERAL (SELECT document_id, language FROM knowledge_places JOIN knowledge_documents USING (document_id)
                    WHERE piece_id = p.piece_id ORDER BY until_version IS NOT NULL, document_id LIMIT 1) d
WHERE p.tenant_id = :tenant AND p.until_version IS NULL AND p.piece_id > :after
  AND p.kind = coalesce(CAST(:kind AS text), p.kind) AND NOT EXISTS (
    SELECT 1 FROM knowledge_vectors v WHERE v.space_id = CAST(:space AS bigint) AND v.piece_id = p.piece_id)
ORDER BY p.piece_id LIMIT :most
""")
_STORE: Final = text("""
INSERT INTO knowledge_vectors (space_id, piece_id, embedding, dims, graph, from_version, until_version)
SELECT s.space_id, p.piece_id, CAST(g.embedding AS halfvec), s.dims, s.graph, p.from_version, p.until_version
FROM unnest(CAST(:pieces AS bigint[]), CAST(:vectors AS text[])) AS g (piece_id, embedding)
JOIN knowledge_spaces s ON s.space_id = :space
JOIN knowledge_pieces p ON p.piece_id = g.piece_id AND p.tenant_id = s.tenant_id
ON CONFLICT DO NOTHING
""")
_AXES: Final = text("""
INSERT INTO knowledge_axes (space_id, term, embedding)
SELECT :space, term, CAST(embedding AS vector)
FROM unnest(CAST(:terms AS text[]), CAST(:vectors AS text[])) AS g (term, embedding)
ON CONFLICT DO NOTHING
""")
_READ_AXES: Final = text("""
SELECT term, CAST(embedding AS text) AS embedding FROM knowledge_axes
WHERE space_id = :space AND term = ANY(CAST(:terms AS text[]))
""")
_GRAPH: Final = text("""
UPDATE knowledge_vectors SET graph = true WHERE (space_id, piece_id) IN (
    SELECT space_id, piece_id FROM knowledge_vectors WHERE space_id = :space AND NOT graph LIMIT :most)
RETURNING piece_id
""")
_IN_GRAPH: Final = text("UPDATE knowledge_spaces SET graph = true WHERE space_id = :space AND NOT graph")
_COUNT: Final = text("""
SELECT count(*)::int AS pieces FROM knowledge_pieces WHERE tenant_id = :tenant AND until_version IS NULL
""")


@dataclass(frozen=True, slots=True)
class Space:
    """The space that a tenant's questions are compared in."""

    space_id: int
    name: str
    kind: SpaceKind
    dims: int


@dataclass(frozen=True, slots=True)
class Unembedded:
    """A piece that lacks a vector of a space."""

    piece_id: int
    title: str
    heading: str
    text: str
    kind: PassageKind
    document_id: int
    """The first that it stands in."""
    language: str

    @property
    def whole(self) -> str:
        """What is embedded: the piece under its title and headings."""
        return whole_text(self.title, self.heading, self.text)


class SpaceMismatch(Exception):
    """The vectors have another length than those that are there under the same name: name the new space otherwise."""


def whole_text(title: str, heading: str, said: str) -> str:
    """Return what is embedded of a piece: its text under title and headings."""
    return "\n".join(part for part in (title, heading, said) if part)


class Spaces:
    """Vectors of the pieces of knowledge bases."""

    def __init__(self, engine: AsyncEngine, *, graph_from: int = GRAPH_FROM) -> None:
        self._engine = engine
        self._graph_from = graph_from

    async def current(self, tenant: str) -> Space | None:
        """Return the space that serves; None if none does."""
        found = await row(self._engine, _CURRENT, {"tenant": tenant})
        return Space(**dict(found)) if found else None

    async def named(self, tenant: str, name: str) -> int | None:
        """Return the id of the space of this name, complete or not; None if there is none."""
        found = await row(self._engine, _NAMED, {"tenant": tenant, "name": name})
        return int(found["space_id"]) if found else None

    async def count(self, tenant: str) -> int:
        """Return how many pieces will be published next."""
        found = await row(self._engine, _COUNT, {"tenant": tenant})
        return int(found["pieces"]) if found else 0

    async def begin(self, tenant: str, name: str, *, kind: SpaceKind, dims: int) -> int:
        """Return the id of the space of this name, made if it is new.

        Raises:
            SpaceMismatch: there is one with other dimensions.
        """
        async with transaction(self._engine) as connection:
            space = await ensure_space(connection, tenant, name, kind=kind, dims=dims)
        if await self.count(tenant) >= self._graph_from:
            await rows(self._engine, _IN_GRAPH, {"space": space})
        return space

    async def missing(
        self,
        tenant: str,
        space: int | None,
        *,
        after: int = 0,
        most: int = _AT_A_TIME,
        kind: PassageKind | None = None,
    ) -> list[Unembedded]:
        """Return pieces beyond `after`, of a kind or all, that lack a vector of a space; of no space, all. In order."""
        values = {"tenant": tenant, "space": space, "after": after, "most": most, "kind": kind}
        return [Unembedded(**dict(found)) for found in await rows(self._engine, _MISSING, values)]

    async def store(self, space: int, pieces: Sequence[int], vectors: Sequence[Sequence[float]]) -> None:
        """Store vectors of pieces; those that are there already stay."""
        async with transaction(self._engine) as connection:
            await store_vectors(connection, space, pieces, vectors)

    async def store_axes(self, space: int, axes: Sequence[tuple[str, Sequence[float]]]) -> None:
        """Store the terms a fitted space stands on, each with its weighed vector."""
        for start in range(0, len(axes), _AT_A_TIME):
            part = axes[start : start + _AT_A_TIME]
            values = {"terms": [term for term, _ in part], "vectors": [_literal(vector) for _, vector in part]}
            await rows(self._engine, _AXES, {"space": space, **values})

    async def axes(self, space: int, terms: Sequence[str]) -> dict[str, list[float]]:
        """Return the vectors of those of the terms that a fitted space knows."""
        found = await rows(self._engine, _READ_AXES, {"space": space, "terms": list(terms)})
        return {one["term"]: [float(part) for part in one["embedding"][1:-1].split(",")] for one in found}

    async def grow(self, tenant: str) -> None:
        """Take the serving space's vectors into the graph once there are enough of them."""
        space = await self.current(tenant)
        if space is None or await self.count(tenant) < self._graph_from:
            return
        while await rows(self._engine, _GRAPH, {"space": space.space_id, "most": _AT_A_TIME}):
            pass
        await rows(self._engine, _IN_GRAPH, {"space": space.space_id})


async def ensure_space(connection: AsyncConnection, tenant: str, name: str, *, kind: SpaceKind, dims: int) -> int:
    """Return the id of the tenant's space of this name, made if it is new.

    Raises:
        SpaceMismatch: there is one with other dimensions.
    """
    values = {"tenant": tenant, "name": name, "kind": kind, "dims": dims}
    found = (await connection.execute(_ENSURE, values)).mappings().one()
    if found["dims"] != dims:
        raise SpaceMismatch(
            f"Space '{name}' has {found['dims']} dimensions, not {dims}: give the new one another name."
        )
    return int(found["space_id"])


async def store_vectors(
    connection: AsyncConnection, space: int, pieces: Sequence[int], vectors: Sequence[Sequence[float]]
) -> None:
    """Store vectors of pieces, brought to length one; those that are there already stay."""
    for start in range(0, len(pieces), _AT_A_TIME):
        part = [as_text(vector) for vector in vectors[start : start + _AT_A_TIME]]
        values = {"space": space, "pieces": list(pieces[start : start + _AT_A_TIME]), "vectors": part}
        await connection.execute(_STORE, values)


def as_text(vector: Sequence[float]) -> str:
    """Return a vector of length one as pgvector reads it; one of length zero stays."""
    length = math.sqrt(math.fsum(part * part for part in vector)) or 1.0
    return _literal([part / length for part in vector])


def _literal(vector: Sequence[float]) -> str:
    return f"[{','.join(f'{part:.5g}' for part in vector)}]"
