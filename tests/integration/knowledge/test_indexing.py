"""Vectors are complete before anybody is asked by them, whatever was interrupted."""

from collections.abc import Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.embeddings.embedder import EmbeddingFailed
from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.knowledge_indexing import AT_A_TIME, Indexing
from infra.postgres.knowledge_spaces import Spaces
from infra.postgres.statements import rows
from tests.support.knowledge import document


class BrokenOff:
    """An embedder that gives vectors for so many requests, then none."""

    def __init__(self, *, requests: int, space: str = "test") -> None:
        self.requests = requests
        self.space = space
        self.embedded: list[str] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text, while there are requests left."""
        if not self.requests:
            raise EmbeddingFailed("no more")
        self.requests -= 1
        self.embedded.extend(texts)
        return [[1.0, float(len(said))] for said in texts]


async def _published(engine: AsyncEngine, tenant: str = "acme") -> int:
    found = await rows(engine, text("SELECT version FROM knowledge_bases WHERE tenant_id = :t"), {"t": tenant})
    return int(found[0]["version"])


async def test_an_interrupted_ingest_goes_on(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """After a break between two documents and one between two batches nothing is embedded twice, and all is there."""
    said = [f"Piece number {number}." for number in range(AT_A_TIME + 10)]
    documents = [document("a.md", *said), document("b.md", "The last one.")]
    await knowledge.put("acme", documents[0])
    again = KnowledgeBase(engine)
    missing = [one for one in documents if (await again.digests("acme")).get(one.source) != one.sha256]
    assert [one.source for one in missing] == ["b.md"]
    await again.put("acme", missing[0])
    embedder = BrokenOff(requests=1)
    with pytest.raises(EmbeddingFailed):
        await Indexing(engine, embedder=embedder).publish("acme")
    assert await _published(engine) == 0
    embedder.requests = 9
    assert (await Indexing(engine, embedder=embedder).publish("acme")).startswith("1-")
    assert len(embedder.embedded) == len(set(embedder.embedded)) == AT_A_TIME + 11


async def test_the_old_space_serves_until_the_new_one_is_complete(
    engine: AsyncEngine, knowledge: KnowledgeBase
) -> None:
    """A refit that stopped half-way changes nothing for readers; a whole one takes over and the old one goes."""
    await knowledge.put("acme", document("a.md", *(f"Apple {number} of the orchard." for number in range(120))))
    await Indexing(engine).publish("acme")
    spaces = Spaces(engine)
    before = await spaces.current("acme")
    assert before is not None
    half = BrokenOff(requests=1, space="half")
    with pytest.raises(EmbeddingFailed):
        await Indexing(engine, embedder=half).publish("acme")
    await knowledge.put("acme", document("b.md", "Something else."))
    await knowledge.publish("acme")
    assert await spaces.current("acme") == before
    await Indexing(engine).publish("acme")
    after = await spaces.current("acme")
    assert after is not None
    assert after.name != before.name
    assert await spaces.named("acme", before.name) is None


async def test_the_same_texts_give_the_same_space(engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """The name of a fitted space is that of what it was fitted on, so publishing again makes no other."""
    for tenant in ("acme", "umbra"):
        await knowledge.put(tenant, document("a.md", "Apples cost one euro.", "Pears cost two."))
        await Indexing(engine).publish(tenant)
        await Indexing(engine).publish(tenant)
    acme, umbra = await Spaces(engine).current("acme"), await Spaces(engine).current("umbra")
    assert acme is not None
    assert umbra is not None
    assert acme.name == umbra.name
    assert acme.space_id != umbra.space_id
