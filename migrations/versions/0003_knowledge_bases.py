"""Knowledge bases."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE knowledge_spaces (
    space_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name        text NOT NULL CHECK (name <> ''),
    kind        text NOT NULL CHECK (kind IN ('fitted', 'endpoint')),
    dims        int NOT NULL CHECK (dims BETWEEN 1 AND 4000),
    graph       boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (tenant_id, name)
);
COMMENT ON TABLE knowledge_spaces IS 'Vectors of two spaces cannot be compared. One serves until another has every piece.';
COMMENT ON COLUMN knowledge_spaces.graph IS 'Large enough for the HNSW graph; else every vector is looked at.';

CREATE TABLE knowledge_bases (
    tenant_id   text PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    version     int NOT NULL DEFAULT 0,
    snapshot    text NOT NULL DEFAULT '',
    space_id    bigint REFERENCES knowledge_spaces ON DELETE SET NULL,
    pieces      int NOT NULL DEFAULT 0,
    languages   text[] NOT NULL DEFAULT '{}',
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz
);
COMMENT ON COLUMN knowledge_bases.version IS 'Published last. What is put or removed belongs to the next one, unseen until then.';
COMMENT ON COLUMN knowledge_bases.languages IS 'Whose word endings its pieces were cut by.';

CREATE TABLE knowledge_documents (
    document_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id     text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    source        text NOT NULL CHECK (source <> ''),
    title         text NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('document', 'answer')),
    sha256        text NOT NULL,
    language      text NOT NULL,
    turn_id       uuid,
    from_version  int NOT NULL,
    until_version int CHECK (until_version > from_version),
    added_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN knowledge_documents.turn_id IS 'The turn whose answer a written answer corrects.';
CREATE UNIQUE INDEX knowledge_documents_live ON knowledge_documents (tenant_id, source) WHERE until_version IS NULL;
CREATE INDEX knowledge_documents_past ON knowledge_documents (tenant_id, until_version) WHERE until_version IS NOT NULL;

CREATE TABLE knowledge_pieces (
    piece_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id     text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    digest        bytea NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('document', 'answer')),
    title         text NOT NULL,
    heading       text NOT NULL,
    text          text NOT NULL,
    lexemes       tsvector NOT NULL,
    from_version  int NOT NULL,
    until_version int CHECK (until_version > from_version)
);
COMMENT ON COLUMN knowledge_pieces.lexemes IS 'Word stems; title A, heading B, text D. And @tenant, so that one index search knows whose they are.';
-- Ranking reads the lexemes of many pieces: inline, they cost no second look each.
ALTER TABLE knowledge_pieces SET (toast_tuple_target = 8160);
CREATE UNIQUE INDEX knowledge_pieces_live ON knowledge_pieces (tenant_id, digest) WHERE until_version IS NULL;
CREATE INDEX knowledge_pieces_past ON knowledge_pieces (tenant_id, until_version) WHERE until_version IS NOT NULL;
CREATE INDEX knowledge_pieces_lexemes ON knowledge_pieces USING gin (lexemes) WITH (fastupdate = off);

CREATE TABLE knowledge_places (
    document_id bigint NOT NULL REFERENCES knowledge_documents ON DELETE CASCADE,
    position    int NOT NULL,
    piece_id    bigint NOT NULL REFERENCES knowledge_pieces ON DELETE CASCADE,
    PRIMARY KEY (document_id, position)
);
COMMENT ON TABLE knowledge_places IS 'Which piece stands where: the same text in several documents is one piece.';
CREATE INDEX knowledge_places_piece ON knowledge_places (piece_id);

CREATE TABLE knowledge_terms (
    tenant_id text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    term      text NOT NULL,
    pieces    int NOT NULL,
    PRIMARY KEY (tenant_id, term)
);
COMMENT ON COLUMN knowledge_terms.pieces IS 'How many have the term: what everybody says tells little.';

CREATE TABLE knowledge_axes (
    space_id  bigint NOT NULL REFERENCES knowledge_spaces ON DELETE CASCADE,
    term      text NOT NULL,
    embedding vector NOT NULL,
    PRIMARY KEY (space_id, term)
);
COMMENT ON TABLE knowledge_axes IS 'A fitted space: the vector of each term, weighed. The sum over a text is the text''s.';

CREATE TABLE knowledge_vectors (
    space_id      bigint NOT NULL REFERENCES knowledge_spaces ON DELETE CASCADE,
    piece_id      bigint NOT NULL REFERENCES knowledge_pieces ON DELETE CASCADE,
    embedding     halfvec NOT NULL,
    dims          int NOT NULL,
    graph         boolean NOT NULL DEFAULT false,
    from_version  int NOT NULL,
    until_version int,
    PRIMARY KEY (space_id, piece_id)
);
COMMENT ON COLUMN knowledge_vectors.until_version IS 'As its piece has it, so that no other table is read while vectors are compared.';
CREATE INDEX knowledge_vectors_piece ON knowledge_vectors (piece_id);
"""

DIMS = (256, 384, 512, 768, 1024, 1536, 2048, 3072)
"""Of spaces that a graph can hold; vectors of other lengths are compared one by one."""

GRAPH = """
CREATE INDEX knowledge_vectors_graph_{dims} ON knowledge_vectors
    USING hnsw ((embedding::halfvec({dims})) halfvec_cosine_ops) WHERE graph AND dims = {dims}
"""

# The settings end with the function. A tenant always gets its `most` pieces, if it has so many: where the graph was
# left before they were found, everything is looked at.
NEAREST = """
CREATE FUNCTION knowledge_nearest(wanted bigint, at_version int, question halfvec, most int)
RETURNS TABLE (piece_id bigint, distance double precision)
LANGUAGE plpgsql STABLE
SET hnsw.iterative_scan = 'strict_order'
SET hnsw.ef_search = '100'
AS $$
DECLARE
    space record;
    pieces bigint[];
    distances double precision[];
BEGIN
    SELECT s.dims, s.graph INTO space FROM knowledge_spaces s WHERE s.space_id = wanted;
    IF question IS NULL OR space.dims IS DISTINCT FROM vector_dims(question) THEN
        RETURN;
    END IF;
    IF space.graph THEN
        EXECUTE format(
            'SELECT array_agg(n.piece_id), array_agg(n.distance) FROM (
                 SELECT v.piece_id, v.embedding::halfvec(%1$s) <=> $3::halfvec(%1$s) AS distance
                 FROM knowledge_vectors v
                 WHERE v.space_id = $1 AND v.graph AND v.dims = %1$s
                   AND v.from_version <= $2 AND coalesce(v.until_version > $2, true)
                 ORDER BY 2 LIMIT $4) n', space.dims)
            INTO pieces, distances USING wanted, at_version, question, most;
    END IF;
    IF cardinality(pieces) = most THEN
        RETURN QUERY SELECT * FROM unnest(pieces, distances);
    ELSE
        RETURN QUERY
            SELECT v.piece_id, v.embedding <=> question FROM knowledge_vectors v
            WHERE v.space_id = wanted AND v.from_version <= at_version AND coalesce(v.until_version > at_version, true)
            ORDER BY 2 LIMIT most;
    END IF;
END
$$
"""

DOWNGRADE = """
DROP FUNCTION knowledge_nearest;
DROP TABLE knowledge_vectors;
DROP TABLE knowledge_axes;
DROP TABLE knowledge_terms;
DROP TABLE knowledge_places;
DROP TABLE knowledge_pieces;
DROP TABLE knowledge_documents;
DROP TABLE knowledge_bases;
DROP TABLE knowledge_spaces;
"""


def _each(script: str) -> None:
    # The driver prepares statements, and a prepared statement is one statement.
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)


def upgrade() -> None:
    _each(UPGRADE)
    for dims in DIMS:
        op.execute(GRAPH.format(dims=dims))
    op.execute(NEAREST)


def downgrade() -> None:
    _each(DOWNGRADE)
