"""The sample knowledge base of a local system."""

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.local_keys import TENANT
from cli.samples import FOLDER, load_samples
from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.tenants import Tenants
from schemas.knowledge_policy import KnowledgePolicy
from tests.support.knowledge import document
from workers.researcher.researcher import Researcher


async def test_samples_are_loaded_once(database_url: str, engine: AsyncEngine, knowledge: KnowledgeBase) -> None:
    """A local system knows the sample pages and answers; a second start changes nothing, and other documents stay."""
    await Tenants(engine, pepper=SecretStr("pepper")).create(TENANT, name="Demo")
    await knowledge.put(TENANT, document("own/a.md", "Words of its own."))
    await knowledge.put(TENANT, document(f"{FOLDER}/old.md", "A page that is no sample any more."))
    await load_samples(database_url)
    first = await knowledge.listing(TENANT)
    samples = [one for one in first if one.source.startswith(f"{FOLDER}/")]
    assert 13 <= len(samples) <= 17
    assert {one.kind for one in samples} == {"document", "answer"}
    assert all(one.published and one.pieces for one in first)
    assert f"{FOLDER}/old.md" not in {one.source for one in samples}
    assert "own/a.md" in {one.source for one in first}
    await load_samples(database_url)
    assert await knowledge.listing(TENANT) == first

    researcher = Researcher(engine, policy=KnowledgePolicy(deadline=10))
    for question, source in (
        ("What does it cost for one site?", "pricing.md"),
        ("How do we set up SAML with Okta?", "security.md"),
        ("The scanner feed has turned red", "troubleshooting.md"),
        ("Can your API integrate with NetSuite, or do we need our own connector?", "faq.jsonl"),
    ):
        found = await researcher.retrieve(TENANT, question, language="en")
        assert source in {passage.source.removeprefix(f"{FOLDER}/") for passage in found.passages}, question
