"""Hybrid search of a tenant's knowledge base: words and vectors, one statement, one round trip.

Words: any of them, never all (buyers do not use the words of the documentation). The rank of each word saturates and
is weighed by how few pieces have it, which PostgreSQL's own ranking does not know. Vectors: the nearest to that of the
question, which leans to those of the best pieces by words: where words are right, it looks further in their direction.
Both ranks are fused by their reciprocals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.knowledge_spaces import as_text
from infra.postgres.statements import row, rows
from schemas.knowledge import PassageKind

DEEP: Final = 60
"""Pieces of each ranking that are fused."""

RANKED: Final = 800
"""Pieces that are ranked by words, about: those with the rarest words of a question. The common ones find nothing."""

FUSE: Final = 30
"""What is added to a rank before its reciprocal is taken: the larger, the less the first places stand out."""

LEADERS: Final = 3
"""Best pieces by words that a question's vector leans to."""

_BASE: Final = text("""
SELECT b.version, b.snapshot, b.pieces, b.languages, s.name AS space, s.kind AS space_kind
FROM knowledge_bases b LEFT JOIN knowledge_spaces s USING (space_id) WHERE b.tenant_id = :tenant
""")

SEARCH: Final = text("""
WITH base AS (
    SELECT b.version, b.snapshot, b.pieces, b.space_id, s.kind, s.name
    FROM knowledge_bases b LEFT JOIN knowledge_spaces s USING (space_id) WHERE b.tenant_id = :tenant
), asked AS (
    SELECT a.word, a.term, CAST('''' || a.term || '''' AS tsquery) AS query, t.pieces,
           ln(1 + (base.pieces - coalesce(t.pieces, 0) + 0.5) / (coalesce(t.pieces, 0) + 0.5)) AS idf
    FROM base CROSS JOIN unnest(CAST(:words AS int[]), CAST(:terms AS text[])) AS a (word, term)
    LEFT JOIN knowledge_terms t ON t.tenant_id = :tenant AND t.term = a.term AND t.pieces > 0
), known AS (
    SELECT *, row_number() OVER rarest AS place, sum(pieces) OVER rarest AS reached FROM asked
    WHERE pieces IS NOT NULL WINDOW rarest AS (ORDER BY pieces, term ROWS UNBOUNDED PRECEDING)
), weight AS (
    SELECT sum(idf) AS whole FROM (SELECT min(idf) AS idf FROM asked GROUP BY word) each
), wanted AS (
    SELECT CAST('''@' || CAST(:tenant AS text) || ''' & (' || string_agg('''' || term || '''', ' | ') || ')' AS tsquery)
           AS query
    FROM known WHERE place <= 2 OR reached <= :ranked
), matching AS MATERIALIZED (
    SELECT p.piece_id, p.lexemes FROM base CROSS JOIN knowledge_pieces p
    WHERE p.tenant_id = :tenant AND p.lexemes @@ (SELECT query FROM wanted)
      AND p.from_version <= base.version AND coalesce(p.until_version > base.version, true)
), lexical AS (
    SELECT piece_id, row_number() OVER (ORDER BY score DESC, piece_id) AS place FROM (
        SELECT m.piece_id, sum(known.idf * ts_rank(CAST(:weights AS real[]), m.lexemes, known.query, :norm)) AS score
        FROM matching m JOIN known ON m.lexemes @@ known.query
        GROUP BY m.piece_id ORDER BY 2 DESC, 1 LIMIT CAST(:deep AS int)
    ) ranked
), question AS (
    SELECT CASE WHEN base.name = CAST(:space AS text) THEN CAST(CAST(:vector AS text) AS halfvec)
                WHEN base.kind = 'fitted' THEN (
                    SELECT CAST(l2_normalize(sum(x.embedding)) AS halfvec) FROM knowledge_axes x
                    WHERE x.space_id = base.space_id AND x.term = ANY(CAST(:terms AS text[]))
                ) END AS vector
    FROM base
), led AS (
    SELECT l2_normalize(sum(CAST(v.embedding AS vector))) AS vector
    FROM base CROSS JOIN lexical JOIN knowledge_vectors v USING (space_id, piece_id)
    WHERE lexical.place <= CAST(:leaders AS int) AND CAST(:lean AS real) > 0
), wished AS (
    SELECT CAST(CASE WHEN led.vector IS NULL OR vector_dims(led.vector) <> vector_dims(question.vector)
                     THEN CAST(question.vector AS vector)
                     ELSE coalesce(CAST(question.vector AS vector) + led.vector * CAST(array_fill(
                          CAST(:lean AS real), ARRAY[vector_dims(led.vector)]) AS vector), led.vector)
                END AS halfvec) AS vector
    FROM question CROSS JOIN led
), dense AS (
    SELECT n.piece_id, row_number() OVER (ORDER BY n.distance, n.piece_id) AS place
    FROM base CROSS JOIN wished
    CROSS JOIN LATERAL knowledge_nearest(base.space_id, base.version, wished.vector, CAST(:deep AS int)) n
    WHERE n.distance <> 'NaN'
), fused AS (
    SELECT piece_id,
           coalesce(CAST(:words_weight AS float8) / (CAST(:fuse AS int) + lexical.place), 0)
           + coalesce(CAST(:vectors_weight AS float8) * base.pieces / (base.pieces + CAST(:half_at AS int))
                      / (CAST(:fuse AS int) + dense.place), 0) AS score
    FROM base CROSS JOIN (lexical FULL JOIN dense USING (piece_id))
), placed AS (
    SELECT piece_id, d.source, d.title, d.language,
           fused.score * CASE WHEN d.language <> CAST(:language AS text) THEN CAST(:foreign AS float8) ELSE 1 END
           AS score,
           row_number() OVER (PARTITION BY d.source ORDER BY fused.score DESC, piece_id) AS nth
    FROM fused CROSS JOIN base CROSS JOIN LATERAL (
        SELECT d.source, d.title, d.language FROM knowledge_places o JOIN knowledge_documents d USING (document_id)
        WHERE o.piece_id = fused.piece_id AND d.tenant_id = :tenant
          AND d.from_version <= base.version AND coalesce(d.until_version > base.version, true)
        ORDER BY d.document_id LIMIT 1
    ) d
), best AS (
    SELECT piece_id, source, title, language, score / (1 + CAST(:again AS float8) * (nth - 1)) AS score
    FROM placed ORDER BY 5 DESC, 1 LIMIT CAST(:most AS int)
)
SELECT base.snapshot, best.piece_id, best.source, best.title, best.language, p.heading, p.text, p.kind, best.score,
       (SELECT nullif(1 - (v.embedding <=> question.vector), 'NaN') FROM question JOIN knowledge_vectors v
        ON v.space_id = base.space_id AND v.piece_id = best.piece_id AND v.dims = vector_dims(question.vector)
       ) AS nearness,
       (SELECT coalesce(sum(idf), 0) FROM (
            SELECT max(known.idf) AS idf FROM known WHERE p.lexemes @@ known.query GROUP BY known.word) covered)
       / (SELECT nullif(whole, 0) FROM weight) AS covered
FROM base LEFT JOIN best ON true LEFT JOIN knowledge_pieces p USING (piece_id)
ORDER BY best.score DESC, best.piece_id
""")


@dataclass(frozen=True, slots=True)
class Base:
    """What must be known of a knowledge base before it is asked."""

    version: int
    snapshot: str
    pieces: int
    languages: tuple[str, ...]
    space: str | None
    fitted: bool
    """Whether its vectors come from terms; else a question's vector must be brought."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A piece that was found."""

    piece_id: int
    source: str
    title: str
    heading: str
    text: str
    kind: PassageKind
    language: str
    score: float
    """Of the fused ranking."""
    nearness: float | None
    """Cosine of question and piece; None if either has no vector."""
    covered: float
    """Share of what the question's words tell that the piece has, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one search found, best first, and in which snapshot."""

    snapshot: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """How much what counts."""

    words: float
    vectors: float
    title: float = 1.0
    heading: float = 0.6
    text: float = 0.3
    norm: int = 1
    fuse: int = FUSE
    lean: float = 0.3
    """How much of the question's vector is that of the best pieces by words, as against its own."""
    half_at: int = 0
    """Pieces of a knowledge base with which vectors count half; with more of them more, up to their whole weight."""
    again: float = 0.5
    """What is taken off a further piece of a document that is there already, so that others have their say."""
    foreign: float = 0.8
    """For documents in another language than the question."""


FITTED: Final = Ranking(words=1, vectors=1, half_at=50)
"""For vectors fitted on the same words, which add what else is about it. Fitted on a few texts, they add nothing."""

ENDPOINT: Final = Ranking(words=1, vectors=1, lean=0.1)
"""For those of a model that has read more than the knowledge base."""


class KnowledgeSearch:
    """Searches what was published last."""

    def __init__(self, engine: AsyncEngine, *, ranking: Ranking | None = None) -> None:
        """
        Args:
            engine: the ledger's.
            ranking: in place of those of this module, to measure.
        """
        self._engine = engine
        self._ranking = ranking

    async def base(self, tenant: str) -> Base | None:
        """Return what a tenant published; None if nothing."""
        found = await row(self._engine, _BASE, {"tenant": tenant})
        if found is None or not found["version"]:
            return None
        fitted = found["space_kind"] == "fitted"
        told = (found["version"], found["snapshot"], found["pieces"], tuple(found["languages"]), found["space"])
        return Base(*told, fitted)

    async def search(
        self,
        tenant: str,
        terms: Sequence[tuple[int, str]],
        *,
        most: int,
        language: str | None = None,
        space: str | None = None,
        vector: Sequence[float] | None = None,
    ) -> Found:
        """Return the best pieces.

        Args:
            tenant: whose; no other's piece is ever among them.
            terms: of the question, each with the number of its word.
            most: pieces at most.
            language: of the question: of equals, documents in it go first.
            space: the space of `vector`.
            vector: of the question; of a fitted space it is made here, from the terms.
        """
        r = self._ranking or (FITTED if vector is None else ENDPOINT)
        values: dict[str, object] = {
            "tenant": tenant,
            "words": [word for word, _ in terms],
            "terms": [term for _, term in terms],
            "space": space,
            "vector": None if vector is None else as_text(vector),
            "weights": [r.text, r.text, r.heading, r.title],
            "norm": r.norm,
            "words_weight": r.words,
            "vectors_weight": r.vectors,
            "fuse": r.fuse,
            "lean": r.lean,
            "half_at": r.half_at,
            "leaders": LEADERS,
            "again": r.again,
            "language": language or None,
            "foreign": r.foreign,
            "deep": DEEP,
            "ranked": RANKED,
            "most": most,
        }
        found = await rows(self._engine, SEARCH, values)
        hits = tuple(_hit(one) for one in found if one["piece_id"] is not None)
        return Found(found[0]["snapshot"] if found else "", hits)


def _hit(found: RowMapping) -> Hit:
    return Hit(
        piece_id=found["piece_id"],
        source=found["source"],
        title=found["title"],
        heading=found["heading"],
        text=found["text"],
        kind=found["kind"],
        language=found["language"],
        score=float(found["score"]),
        nearness=found["nearness"],
        covered=min(1.0, float(found["covered"] or 0)),
    )
