"""Search finds by any word and by what is near, in one tenant's published knowledge base only."""

from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.embeddings.words import asked_terms
from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.knowledge_indexing import Indexing
from infra.postgres.knowledge_search import ENDPOINT, Found, KnowledgeSearch
from infra.postgres.knowledge_spaces import Spaces
from infra.postgres.statements import rows
from tests.support.knowledge import document

_SPACE = "endpoint-test"


async def _asked(engine: AsyncEngine, tenant: str, question: str, *, most: int = 5) -> Found:
    return await KnowledgeSearch(engine).search(tenant, asked_terms(question, ["en"]), most=most)


def _vector(*parts: float) -> list[float]:
    return [*parts, *([0.0] * (256 - len(parts)))]


async def test_any_word_is_enough(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """A question is answered by the piece that has its rare words, though none has all of them."""
    await knowledge.put("acme", document("refunds.md", "You can ask for refunds within thirty days.", title="Refunds"))
    await knowledge.put(
        "acme", document("sites.md", "Add your site and start.", "Your site, your rules.", title="Sites")
    )
    snapshot = await Indexing(engine).publish("acme")
    found = await _asked(engine, "acme", "Hello there, how would I get a refund for my site, mate?")
    assert found.snapshot == snapshot
    assert found.hits[0].source == "refunds.md"
    assert 0 < found.hits[0].covered < 1
    assert found.hits[0].nearness is not None


async def test_a_question_leans_to_what_its_words_find(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """Of two pieces as near to the question, the one that is near to the best piece by words too goes first."""
    for source, said, vector in (
        ("a-other.md", "Bicycles.", _vector(0.5, 0.0, 1.0)),
        ("b-named.md", "The frobnicator.", _vector(0.5, 1.0)),
        ("c-alike.md", "Its housing.", _vector(0.5, 1.0, 0.1)),
    ):
        await knowledge.put("acme", document(source, said), vectors=[vector], space=_SPACE)
    await knowledge.publish("acme")
    terms = asked_terms("frobnicator", ["en"])
    orders: list[list[str]] = []
    for ranking in (ENDPOINT, replace(ENDPOINT, lean=0)):
        search = KnowledgeSearch(engine, ranking=ranking)
        found = await search.search("acme", terms, most=3, space=_SPACE, vector=_vector(1.0, 0.0, 0.05))
        orders.append([hit.source for hit in found.hits])
        assert all(hit.nearness is not None and 0.4 < hit.nearness < 0.5 for hit in found.hits)
    assert orders == [["b-named.md", "c-alike.md", "a-other.md"], ["b-named.md", "a-other.md", "c-alike.md"]]


async def test_words_are_enough_where_the_vectors_know_none(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """A word that the fitted space does not know finds its piece, and then what is near to that."""
    said = [f"Apple {number} of the orchard." for number in range(60)]
    await knowledge.put("acme", document("a.md", *said, "Quinces."))
    await Indexing(engine).publish("acme")
    found = await _asked(engine, "acme", "quinces")
    assert found.hits[0].text == "Quinces."
    assert len(found.hits) == 5
    assert {hit.nearness for hit in found.hits} == {None}


async def test_readers_see_what_was_published(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """What was put or removed since is neither found nor missed until it is published, vectors included."""
    await knowledge.put("acme", document("a.md", "Apples cost one euro."))
    first = await Indexing(engine).publish("acme")
    await knowledge.put("acme", document("b.md", "Apples cost two euros."))
    await knowledge.remove("acme", "a.md")
    before = await _asked(engine, "acme", "apples euro")
    assert (before.snapshot, [hit.source for hit in before.hits]) == (first, ["a.md"])
    second = await Indexing(engine).publish("acme")
    after = await _asked(engine, "acme", "apples euro")
    assert (after.snapshot, [hit.source for hit in after.hits]) == (second, ["b.md"])


async def test_no_tenant_sees_another(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """Neither equal texts, nor the other's mark in a question, nor a shared space's name opens another's pieces."""
    shared = document("shared.md", "The launch code is apples.")
    for tenant in ("acme", "umbra"):
        await knowledge.put(tenant, shared, vectors=[_vector(1.0)], space=_SPACE)
    await knowledge.put("umbra", document("secret.md", "Umbra sells pears."), vectors=[_vector(0.0, 1.0)], space=_SPACE)
    await knowledge.publish("acme")
    await knowledge.publish("umbra")
    search = KnowledgeSearch(engine)
    for question in ("pears", "@umbra pears", "x') | '@umbra", "umbra sells pears launch code"):
        for vector in (None, _vector(0.0, 1.0)):
            terms = asked_terms(question, ["en"])
            found = await search.search("acme", terms, most=20, space=_SPACE, vector=vector)
            assert {hit.source for hit in found.hits} <= {"shared.md"}
    forged = await search.search("acme", [(0, "@umbra"), (1, "pear")], most=20, space=_SPACE, vector=_vector(0.0, 1.0))
    assert {hit.source for hit in forged.hits} == {"shared.md"}
    counted = await rows(engine, text("SELECT count(DISTINCT piece_id)::int AS n FROM knowledge_pieces"), {})
    assert counted[0]["n"] == 3


@pytest.fixture
async def huge(engine: AsyncEngine, knowledge: KnowledgeBase) -> AsyncEngine:
    """A tenant with a thousand vectors in the graph, all near one direction, beside one with three there too."""
    said = [f"Piece {number} of many." for number in range(1_000)]
    near = [_vector(1.0, number / 1_000) for number in range(1_000)]
    await knowledge.put("umbra", document("many.md", *said), vectors=near, space=_SPACE)
    few = [_vector(0.0, 0.0, 1.0), _vector(0.0, 0.0, 0.0, 1.0), _vector(0.0, 0.0, 0.0, 0.0, 1.0)]
    await knowledge.put("acme", document("few.md", "One.", "Two.", "Three."), vectors=few, space=_SPACE)
    for tenant in ("umbra", "acme"):
        await knowledge.publish(tenant)
        await Spaces(engine, graph_from=1).grow(tenant)
    await rows(engine, text("ANALYZE knowledge_vectors"), {})
    return engine


async def test_a_small_tenant_beside_a_huge_one_gets_its_pieces(huge: AsyncEngine) -> None:
    """Though thousands of another tenant's vectors are nearer in the same graph, all three of the small one's come."""
    found = await KnowledgeSearch(huge).search("acme", [], most=3, space=_SPACE, vector=_vector(1.0, 0.5))
    assert sorted(hit.text for hit in found.hits) == ["One.", "Three.", "Two."]
    other = await KnowledgeSearch(huge).search("umbra", [], most=20, space=_SPACE, vector=_vector(1.0, 0.5))
    assert len(other.hits) == 20
    assert {hit.source for hit in other.hits} == {"many.md"}


async def test_large_spaces_are_searched_in_the_graph(huge: AsyncEngine) -> None:
    """The nearest vectors of a space in the graph can be had from the HNSW index, those of another never are."""
    of = "WHERE v.space_id = (SELECT space_id FROM knowledge_bases WHERE tenant_id = 'umbra')"
    in_graph = f"{of} AND v.graph AND v.dims = 256 ORDER BY v.embedding::halfvec(256) <=> CAST(:v AS halfvec(256))"
    exact = f"{of} ORDER BY v.embedding <=> CAST(:v AS halfvec)"
    assert "knowledge_vectors_graph_256" in await _plan(huge, in_graph)
    assert "graph_256" not in await _plan(huge, exact)


async def _plan(engine: AsyncEngine, what: str) -> str:
    async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        # A thousand are few enough to be sorted, unless that is made dear.
        await connection.execute(text("SET LOCAL enable_sort = off"))
        statement = text(f"EXPLAIN SELECT v.piece_id FROM knowledge_vectors v {what} LIMIT 60")
        found = await connection.execute(statement, {"v": str(_vector(1.0))})
        return "\n".join(str(line) for line in found.scalars())
