"""The knowledge bases of tenants: what is put in, taken out, and published.

Readers see what was published last, and only that. What is put or removed belongs to the next version; each document
is one transaction, so that whoever is interrupted goes on with those that are missing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from infra.embeddings.words import language_of
from infra.postgres.knowledge_lexemes import lexemes_of
from infra.postgres.knowledge_spaces import ensure_space, store_vectors
from infra.postgres.statements import rows, transaction
from infra.postgres.tenants import UnknownTenant
from schemas.knowledge import Document, PassageKind, Piece

KEPT_SNAPSHOTS: Final = 20
"""Versions back to which everything is kept as it was."""

_DIGESTS: Final = text("""
SELECT source, sha256 FROM knowledge_documents WHERE tenant_id = :tenant AND until_version IS NULL
""")
# Takes the lock under which a tenant's knowledge base changes, one document at a time.
_OPEN: Final = text("""
INSERT INTO knowledge_bases AS b (tenant_id) SELECT tenant_id FROM tenants WHERE tenant_id = :tenant
ON CONFLICT (tenant_id) DO UPDATE SET changed_at = clock_timestamp()
RETURNING b.version + 1 AS next
""")
_LIVE: Final = text("""
SELECT document_id, title, kind, sha256 FROM knowledge_documents
WHERE tenant_id = :tenant AND source = :source AND until_version IS NULL
""")
_ADD: Final = text("""
INSERT INTO knowledge_documents (tenant_id, source, title, kind, sha256, language, turn_id, from_version)
VALUES (:tenant, :source, :title, :kind, :sha256, :language, CAST(:turn AS uuid), :next)
RETURNING document_id
""")
_PLACE: Final = text("""
WITH given AS (
    SELECT * FROM unnest(CAST(:digests AS bytea[]), CAST(:headings AS text[]), CAST(:texts AS text[]),
                         CAST(:lexemes AS text[])) WITH ORDINALITY AS g (digest, heading, said, lexemes, position)
), fresh AS (
    INSERT INTO knowledge_pieces (tenant_id, digest, kind, title, heading, text, lexemes, from_version)
    SELECT DISTINCT ON (digest) CAST(:tenant AS text), digest, :kind, :title, heading, said, CAST(lexemes AS tsvector),
           CAST(:next AS int)
    FROM given ORDER BY digest, position
    ON CONFLICT (tenant_id, digest) WHERE until_version IS NULL DO NOTHING
    RETURNING piece_id, digest, lexemes
), counted AS (
    INSERT INTO knowledge_terms AS t (tenant_id, term, pieces)
    SELECT :tenant, term, count(*) FROM fresh, unnest(tsvector_to_array(fresh.lexemes)) AS term
    WHERE term NOT LIKE '@%' GROUP BY term
    ON CONFLICT (tenant_id, term) DO UPDATE SET pieces = t.pieces + excluded.pieces
), known AS (
    SELECT piece_id, digest FROM fresh UNION ALL
    SELECT piece_id, digest FROM knowledge_pieces
    WHERE tenant_id = :tenant AND digest = ANY(CAST(:digests AS bytea[])) AND until_version IS NULL
), placed AS (
    INSERT INTO knowledge_places (document_id, position, piece_id)
    SELECT :document, given.position, known.piece_id FROM given JOIN known USING (digest)
), spoken AS (
    UPDATE knowledge_bases SET languages = ARRAY(SELECT DISTINCT unnest(languages || CAST(:language AS text)))
    WHERE tenant_id = :tenant AND NOT languages @> ARRAY[CAST(:language AS text)]
)
SELECT given.position, known.piece_id, (SELECT count(*) FROM fresh) AS fresh
FROM given JOIN known USING (digest) ORDER BY given.position
""")
_RETIRE: Final = text("""
WITH gone AS (
    UPDATE knowledge_documents SET until_version = :next
    WHERE document_id = :document AND until_version IS NULL AND from_version < :next
), alone AS (
    SELECT DISTINCT o.piece_id FROM knowledge_places o JOIN knowledge_pieces p USING (piece_id)
    WHERE o.document_id = :document AND p.digest <> ALL(CAST(:kept AS bytea[])) AND NOT EXISTS (
        SELECT 1 FROM knowledge_places other JOIN knowledge_documents d USING (document_id)
        WHERE other.piece_id = o.piece_id AND other.document_id <> :document AND d.until_version IS NULL)
), retired AS (
    UPDATE knowledge_pieces p SET until_version = :next FROM alone
    WHERE p.piece_id = alone.piece_id AND p.from_version < :next AND p.until_version IS NULL
    RETURNING p.piece_id, p.lexemes
), unseen AS (
    DELETE FROM knowledge_pieces p USING alone WHERE p.piece_id = alone.piece_id AND p.from_version = :next
    RETURNING p.piece_id, p.lexemes
), compared AS (
    UPDATE knowledge_vectors v SET until_version = :next FROM retired WHERE v.piece_id = retired.piece_id
), uncounted AS (
    UPDATE knowledge_terms t SET pieces = greatest(t.pieces - c.n, 0)
    FROM (SELECT term, count(*)::int AS n FROM (SELECT lexemes FROM retired UNION ALL SELECT lexemes FROM unseen) l,
          unnest(tsvector_to_array(l.lexemes)) AS term GROUP BY term) c
    WHERE t.tenant_id = :tenant AND t.term = c.term
)
DELETE FROM knowledge_documents WHERE document_id = :document AND from_version = :next
""")
# The name tells the content: two installations that hold the same call it the same after the dash.
_PUBLISH: Final = text("""
WITH live AS (
    SELECT piece_id FROM knowledge_pieces WHERE tenant_id = :tenant AND until_version IS NULL
), chosen AS (
    SELECT s.space_id FROM knowledge_spaces s JOIN knowledge_bases b USING (tenant_id)
    WHERE s.tenant_id = :tenant
    ORDER BY NOT EXISTS (SELECT 1 FROM live WHERE NOT EXISTS (
                 SELECT 1 FROM knowledge_vectors v WHERE v.space_id = s.space_id AND v.piece_id = live.piece_id)) DESC,
             (s.space_id = b.space_id) IS TRUE DESC, s.space_id DESC LIMIT 1
), changed AS (
    SELECT EXISTS (SELECT 1 FROM knowledge_documents WHERE tenant_id = :tenant
                   AND (from_version = :next OR until_version = :next)) AS it
), content AS (
    SELECT left(encode(sha256(convert_to(
        coalesce(string_agg(source || ' ' || sha256, E'\n' ORDER BY source), ''), 'UTF8')), 'hex'), 8) AS digest
    FROM knowledge_documents WHERE tenant_id = :tenant AND until_version IS NULL
)
UPDATE knowledge_bases b SET
    version = CASE WHEN changed.it THEN :next ELSE b.version END,
    snapshot = CASE WHEN changed.it THEN CAST(:next AS text) || '-' || content.digest ELSE b.snapshot END,
    space_id = (SELECT space_id FROM chosen), pieces = (SELECT count(*) FROM live),
    published_at = CASE WHEN changed.it THEN clock_timestamp() ELSE b.published_at END
FROM changed, content WHERE b.tenant_id = :tenant
RETURNING b.snapshot
""")
_FORGET: Final = text("""
WITH base AS (SELECT version - :kept AS oldest, space_id FROM knowledge_bases WHERE tenant_id = :tenant),
documents AS (
    DELETE FROM knowledge_documents d USING base WHERE d.tenant_id = :tenant AND d.until_version <= base.oldest
), pieces AS (
    DELETE FROM knowledge_pieces p USING base WHERE p.tenant_id = :tenant AND p.until_version <= base.oldest
), terms AS (
    DELETE FROM knowledge_terms WHERE tenant_id = :tenant AND pieces = 0
)
DELETE FROM knowledge_spaces s USING base WHERE s.tenant_id = :tenant AND s.space_id < base.space_id
""")
_LISTING: Final = text("""
SELECT d.source, d.title, d.kind, d.sha256, d.language, d.added_at, d.from_version <= b.version AS published,
       (SELECT count(*)::int FROM knowledge_places o WHERE o.document_id = d.document_id) AS pieces
FROM knowledge_documents d JOIN knowledge_bases b USING (tenant_id)
WHERE d.tenant_id = :tenant AND d.until_version IS NULL ORDER BY d.source
""")


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of a document."""

    state: Literal["added", "replaced", "unchanged"]
    pieces: int
    """It has."""
    fresh: int
    """Of them that no document of the tenant had before: their text is to be embedded, the others' is."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A document of a knowledge base as it will be published next."""

    source: str
    title: str
    kind: PassageKind
    sha256: str
    language: str
    added_at: datetime
    published: bool
    """Whether readers see it already."""
    pieces: int


class KnowledgeBase:
    """The knowledge bases, one for each tenant. A document is known by its source."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def digests(self, tenant: str) -> dict[str, str]:
        """Return the SHA-256 of every document that is stored, published or not, by its source."""
        return {found["source"]: found["sha256"] for found in await rows(self._engine, _DIGESTS, {"tenant": tenant})}

    async def put(
        self,
        tenant: str,
        document: Document,
        *,
        vectors: Sequence[Sequence[float]] | None = None,
        space: str | None = None,
    ) -> PutResult:
        """Store a document in the place of the one with its source; readers see it once it is published.

        Args:
            tenant: whose it is.
            document: an equal one changes nothing.
            vectors: of its pieces, in order; None where they are embedded before they are published.
            space: the name of the space that they are of.

        Raises:
            UnknownTenant: there is no such tenant.
            LedgerUnavailable: PostgreSQL does not answer; put it again.
        """
        async with transaction(self._engine) as connection:
            return await put_document(connection, tenant, document, vectors=vectors, space=space)

    async def remove(self, tenant: str, source: str) -> bool:
        """Take a document out; readers see it until that is published. Tell whether it was there."""
        async with transaction(self._engine) as connection:
            return await remove_document(connection, tenant, source)

    async def publish(self, tenant: str) -> str:
        """Let readers see what was put and removed since the last time; return the snapshot's name.

        Nothing changed: the name stays. From now on vectors are compared in the newest space that has every piece.

        Raises:
            UnknownTenant: there is no such tenant.
        """
        async with transaction(self._engine) as connection:
            upcoming = await _open(connection, tenant)
            values = {"tenant": tenant, "next": upcoming}
            snapshot = str((await connection.execute(_PUBLISH, values)).scalar_one())
        await rows(self._engine, _FORGET, {"tenant": tenant, "kept": KEPT_SNAPSHOTS})
        return snapshot

    async def listing(self, tenant: str) -> list[Listed]:
        """Return every document, by source."""
        return [Listed(**dict(found)) for found in await rows(self._engine, _LISTING, {"tenant": tenant})]


async def _open(connection: AsyncConnection, tenant: str) -> int:
    """Return the version that is being put together, having taken the tenant's lock."""
    found = (await connection.execute(_OPEN, {"tenant": tenant})).scalar_one_or_none()
    if found is None:
        raise UnknownTenant(f"there is no tenant '{tenant}'; create it first")
    return int(found)


async def _live(connection: AsyncConnection, tenant: str, source: str) -> RowMapping | None:
    found = await connection.execute(_LIVE, {"tenant": tenant, "source": source})
    return found.mappings().one_or_none()


async def _retire(
    connection: AsyncConnection, tenant: str, document_id: int, upcoming: int, *, kept: Sequence[bytes] = ()
) -> None:
    values = {"tenant": tenant, "document": document_id, "next": upcoming, "kept": list(kept)}
    await connection.execute(_RETIRE, values)


async def remove_document(connection: AsyncConnection, tenant: str, source: str) -> bool:
    """Take a document out, in a transaction; tell whether it was there."""
    upcoming = await _open(connection, tenant)
    found = await _live(connection, tenant, source)
    if found is not None:
        await _retire(connection, tenant, found["document_id"], upcoming)
    return found is not None


async def put_document(
    connection: AsyncConnection,
    tenant: str,
    document: Document,
    *,
    vectors: Sequence[Sequence[float]] | None = None,
    space: str | None = None,
    turn: str | None = None,
) -> PutResult:
    """Store a document, in a transaction; see `KnowledgeBase.put`. A `turn` is the one whose answer it corrects."""
    upcoming = await _open(connection, tenant)
    found = await _live(connection, tenant, document.source)
    digests = [_digest(document.kind, piece) for piece in document.pieces]
    if found is not None:
        same = (found["title"], found["kind"]) == (document.title, document.kind)
        if same and found["sha256"] == document.sha256:
            return PutResult("unchanged", len(digests), 0)
        # Pieces that stay are kept as they are, unless the title changed, by which they are found too.
        await _retire(connection, tenant, found["document_id"], upcoming, kept=digests if same else ())
    pieces, fresh = await _place(connection, tenant, document, digests, upcoming, turn)
    if vectors is not None and space is not None and pieces:
        space_id = await ensure_space(connection, tenant, space, kind="endpoint", dims=len(vectors[0]))
        await store_vectors(connection, space_id, pieces, vectors)
    return PutResult("replaced" if found else "added", len(pieces), fresh)


async def _place(
    connection: AsyncConnection,
    tenant: str,
    document: Document,
    digests: Sequence[bytes],
    upcoming: int,
    turn: str | None,
) -> tuple[list[int], int]:
    """Write a document and those of its pieces that nobody has; return the ids of all, and how many were new."""
    language = language_of(" ".join([document.title, *(piece.text for piece in document.pieces)]))
    told = {"title": _clean(document.title), "kind": document.kind, "language": language}
    values: dict[str, object] = {"tenant": tenant, "next": upcoming, **told}
    written = {"source": document.source, "sha256": document.sha256, "turn": turn}
    added = (await connection.execute(_ADD, {**values, **written})).scalar_one()
    pieces = {
        "digests": list(digests),
        "headings": [_clean(piece.heading) for piece in document.pieces],
        "texts": [_clean(piece.text) for piece in document.pieces],
        "lexemes": [lexemes_of(tenant, document.title, piece, language) for piece in document.pieces],
    }
    placed = (await connection.execute(_PLACE, {**values, **pieces, "document": added})).mappings().all()
    return [one["piece_id"] for one in placed], placed[0]["fresh"] if placed else 0


def _digest(kind: PassageKind, piece: Piece) -> bytes:
    return hashlib.sha256("\0".join((kind, piece.heading, piece.text)).encode()).digest()


def _clean(said: str) -> str:
    """Return text without the one character that PostgreSQL has no form for."""
    return said.replace("\0", "")
