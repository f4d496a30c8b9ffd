"""The researcher is never late and never raises, and written answers win."""

import asyncio
import time

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.engine import create_engine
from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.knowledge_answers import Answers
from infra.postgres.knowledge_indexing import Indexing
from infra.postgres.statements import rows
from schemas.knowledge_policy import KnowledgePolicy
from tests.support.knowledge import document
from workers.researcher.researcher import Researcher

PATIENT = KnowledgePolicy(deadline=30, remember=0)


async def _filled(engine: AsyncEngine) -> None:
    knowledge = KnowledgeBase(engine)
    await knowledge.put("acme", document("refunds.md", "Refunds are possible within 14 days.", title="Refund policy"))
    await knowledge.put("acme", document("api.md", "The API takes 500 requests a second.", title="API limits"))
    await Indexing(engine).publish("acme")


async def test_what_is_found_is_told_with_its_snapshot(engine: AsyncEngine) -> None:
    """Passages come best first with where they are from, and a question that is answered counts as such."""
    await _filled(engine)
    found = await Researcher(engine, policy=PATIENT).retrieve("acme", "Is a refund possible?", language="en")
    assert found.state == "found"
    assert found.passages[0].source == "refunds.md"
    assert found.snapshot is not None
    assert found.snapshot.startswith("1-")
    assert found.answerable
    other = await Researcher(engine, policy=PATIENT).retrieve("acme", "Do you ship llamas to Peru?", language="en")
    assert not other.answerable
    assert other.score < found.score


async def test_a_written_answer_wins(engine: AsyncEngine) -> None:
    """What somebody wrote to the same question goes first; corrected it changes, removed it is gone."""
    await _filled(engine)
    answers, indexing = Answers(engine), Indexing(engine)
    question = "Within how many days are refunds possible?"
    written = await answers.write("acme", question, "Thirty days since March.", operator="key1")
    await indexing.publish_written("acme")
    researcher = Researcher(engine, policy=PATIENT)
    found = await researcher.retrieve("acme", "how many days are refunds possible", language="en")
    assert (found.passages[0].kind, found.passages[0].text) == ("answer", "Thirty days since March.")
    assert {passage.source for passage in found.passages[1:]} >= {"refunds.md"}
    about_the_api = await researcher.retrieve("acme", "How many requests does the API take a second?", language="en")
    assert about_the_api.passages[0].source == "api.md"
    await answers.write("acme", question, "Sixty days.", operator="key1", answer_id=written)
    await indexing.publish_written("acme")
    corrected = await researcher.retrieve("acme", question, language="en")
    assert [passage.text for passage in corrected.passages if passage.kind == "answer"] == ["Sixty days."]
    assert await answers.remove("acme", written, operator="key1")
    assert not await answers.remove("acme", written, operator="key1")
    await indexing.publish_written("acme")
    gone = await researcher.retrieve("acme", question, language="en")
    assert {passage.kind for passage in gone.passages} == {"document"}
    verbs = await rows(
        engine, text("SELECT verb FROM operator_audit WHERE subject = :s ORDER BY audit_id"), {"s": written}
    )
    assert [one["verb"] for one in verbs] == ["answer.add", "answer.correct", "answer.remove"]


async def test_no_knowledge_base_is_off(engine: AsyncEngine) -> None:
    """A tenant without one costs nothing the second time; once one is published it is found after that time."""
    researcher = Researcher(engine, policy=KnowledgePolicy(deadline=30, remember=0.2))
    assert (await researcher.retrieve("acme", "Refund?", language="en")).state == "off"
    await _filled(engine)
    until = time.monotonic() + 10
    while (await researcher.retrieve("acme", "Refund?", language="en")).state == "off":
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def test_postgresql_away_is_failed(engine: AsyncEngine) -> None:
    """Where nothing answers, nobody knows: no exception, and no certainty."""
    away = create_engine("postgresql+asyncpg://nobody@127.0.0.1:9/nothing")
    found = await Researcher(away, policy=PATIENT).retrieve("acme", "Refund?", language="en")
    assert (found.state, found.answerable, found.passages) == ("failed", False, ())
    await away.dispose()


async def test_late_is_late(engine: AsyncEngine) -> None:
    """While a lock holds the search up, the researcher comes back at its deadline; then it works again."""
    await _filled(engine)
    researcher = Researcher(engine, policy=KnowledgePolicy(deadline=0.3, remember=60))
    await Researcher(engine, policy=PATIENT).retrieve("acme", "Refund?", language="en")
    async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        await connection.execute(text("LOCK TABLE knowledge_pieces IN ACCESS EXCLUSIVE MODE"))
        assert (await researcher.retrieve("acme", "Refund?", language="en")).state == "late"
    patient = Researcher(engine, policy=PATIENT)
    assert (await patient.retrieve("acme", "Refund?", language="en")).state == "found"


@pytest.mark.parametrize(
    "hostile", ["", "   ", "?!", "'); DROP TABLE turns;--", "\0", "a" * 100_000, "x " * 50_000, "💥"]
)
async def test_any_text_may_be_asked(engine: AsyncEngine, hostile: str) -> None:
    """Whatever a visitor writes is looked up as words or not at all."""
    await _filled(engine)
    found = await Researcher(engine, policy=PATIENT).retrieve("acme", hostile, language="en")
    assert found.state in ("found", "nothing")
