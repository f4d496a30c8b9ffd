"""What is put into a knowledge base is there once, whole, and read only when it is published."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.statements import rows
from infra.postgres.tenants import UnknownTenant
from tests.support.knowledge import document


async def _n(engine: AsyncEngine, table: str, where: str = "true") -> int:
    found = await rows(engine, text(f"SELECT count(*)::int AS n FROM {table} WHERE {where}"), {})
    return int(found[0]["n"])


async def test_a_document_is_put_once(knowledge: KnowledgeBase) -> None:
    """An equal document changes nothing; one with other bytes takes the place of the first."""
    first = document("prices.md", "Ten euros a month.", "Yearly is cheaper.", title="Prices")
    added = await knowledge.put("acme", first)
    assert (added.state, added.pieces, added.fresh) == ("added", 2, 2)
    assert (await knowledge.put("acme", first)).state == "unchanged"
    replaced = await knowledge.put(
        "acme", document("prices.md", "Ten euros a month.", "Yearly costs 100.", title="Prices")
    )
    assert (replaced.state, replaced.pieces, replaced.fresh) == ("replaced", 2, 1)
    assert list(await knowledge.digests("acme")) == ["prices.md"]
    assert [(one.source, one.pieces, one.published) for one in await knowledge.listing("acme")] == [
        ("prices.md", 2, False)
    ]


async def test_the_same_text_is_stored_once(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """A piece of two documents is one; it stays as long as one of them does, and counts once."""
    await knowledge.put("acme", document("a.md", "Write to our support.", "Apples."))
    second = await knowledge.put("acme", document("b.md", "Write to our support.", "Bananas.", "Bananas."))
    assert (second.pieces, second.fresh) == (3, 1)
    assert await _n(engine, "knowledge_pieces") == 3
    assert await _n(engine, "knowledge_terms", "term = 'support' AND pieces = 1") == 1
    assert await knowledge.remove("acme", "a.md")
    assert await _n(engine, "knowledge_pieces", "text LIKE 'Write%'") == 1
    assert await _n(engine, "knowledge_terms", "term = 'support' AND pieces = 1") == 1
    await knowledge.remove("acme", "b.md")
    await knowledge.publish("acme")
    assert await _n(engine, "knowledge_pieces") == 0
    assert await _n(engine, "knowledge_terms") == 0


async def test_a_snapshot_tells_its_content(knowledge: KnowledgeBase) -> None:
    """Each published change has a name of its own, no change keeps it, and equal content ends in the same digest."""
    await knowledge.put("acme", document("a.md", "Apples."))
    first = await knowledge.publish("acme")
    assert first.startswith("1-")
    assert await knowledge.publish("acme") == first
    await knowledge.put("acme", document("b.md", "Bananas."))
    second = await knowledge.publish("acme")
    await knowledge.remove("acme", "b.md")
    third = await knowledge.publish("acme")
    assert (second.split("-")[0], third.split("-")[0]) == ("2", "3")
    assert third.split("-")[1] == first.split("-")[1] != second.split("-")[1]
    await knowledge.put("umbra", document("a.md", "Apples."))
    assert await knowledge.publish("umbra") == first


async def test_what_was_published_stays_until_the_next_time(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """A replaced document's pieces keep their version's interval, so that a former snapshot can be told apart."""
    await knowledge.put("acme", document("a.md", "Old.", "Same."))
    await knowledge.publish("acme")
    await knowledge.put("acme", document("a.md", "New.", "Same."))
    intervals = await rows(
        engine, text("SELECT text, from_version, until_version FROM knowledge_pieces ORDER BY text"), {}
    )
    assert [tuple(one.values()) for one in intervals] == [("New.", 2, None), ("Old.", 1, 2), ("Same.", 1, None)]


async def test_a_new_title_is_found_by(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """Pieces whose document was given another title are written anew, with its words."""
    await knowledge.put("acme", document("a.md", "Ten euros.", title="Costs"))
    await knowledge.publish("acme")
    await knowledge.put("acme", document("a.md", "Ten euros.", title="Prices"))
    assert await _n(engine, "knowledge_pieces", "lexemes @@ 'price' AND until_version IS NULL") == 1
    assert await _n(engine, "knowledge_pieces", "lexemes @@ 'cost' AND until_version IS NULL") == 0


async def test_a_tenant_is_needed(knowledge: KnowledgeBase) -> None:
    """Nothing is stored for nobody."""
    with pytest.raises(UnknownTenant):
        await knowledge.put("nobody", document("a.md", "Apples."))
    with pytest.raises(UnknownTenant):
        await knowledge.publish("nobody")


async def test_hostile_texts_are_texts(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """Quotes, NUL, operators of the search language and marks of other tenants are words at most."""
    hostile = "it's 'quoted' \\ : & | ! <-> @umbra \0 O'Reilly';DROP TABLE turns;-- ﬁnd Ünïcode 日本語テキスト"
    await knowledge.put("acme", document("it's\\.md", hostile, title=hostile, heading=hostile))
    assert await _n(engine, "knowledge_pieces", "lexemes @@ '''@umbra'''") == 0
    assert await _n(engine, "knowledge_pieces", "lexemes @@ '''@acme'' & unicode & find & ''日本'''") == 1
