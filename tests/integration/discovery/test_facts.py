"""What is learnt of a buyer, from the message that tells it to the brief of the next turn."""

from dataclasses import replace
from typing import Final

from infra.postgres.inbox import Plan, Prepared
from schemas.agents import Agent
from schemas.briefs import Brief, Fact
from tests.support.pipeline import Pipeline, pipeline
from workers.agents.discovery.answer import open_dimensions
from workers.agents.discovery.learning import BOTH, EVADED, TOLD, facts_of

_STORED: Final = (
    "SELECT dimension, value, seq, confidence::float AS confidence, extracted_by FROM facts ORDER BY dimension"
)


def _plan(turn: Prepared) -> Plan:
    brief = Brief(facts=facts_of(turn, "en"))
    return Plan(Agent.DISCOVERY, "discovery-slm", "frontier", direct=False, why="test", policy=1, brief=brief)


async def _prepared(p: Pipeline, conversation: str, message: str) -> Prepared:
    turn = await p.inbox.prepare(await p.record(conversation, message))
    assert turn is not None
    return turn


async def _say(p: Pipeline, conversation: str, message: str) -> Prepared:
    turn = await _prepared(p, conversation, message)
    assert await p.inbox.queue(turn, _plan(turn))
    await p.answer(turn.turn_id)
    return turn


async def test_facts_are_written_with_the_queue_and_read_with_the_next_turn(database_url: str, redis_url: str) -> None:
    """What a message tells is in the ledger once its turn is queued, and in the next turn's brief with its source."""
    async with pipeline(database_url, redis_url) as p:
        await _say(p, "c1", "We have forty people and our budget is 50k.")
        await _say(p, "other", "We use spreadsheets.")

        turn = await _prepared(p, "c1", "By the end of March")
        await p.inbox.queue(turn, _plan(turn))
        claim = await p.runtime.executor.claims.claim(turn.turn_id)

        assert {(f.dimension, f.seq, f.confidence) for f in turn.facts} == {("team", 1, TOLD), ("budget", 1, TOLD)}
        assert claim is not None
        told = {fact.dimension: fact for fact in claim.brief.facts}
        assert {"team", "budget", "timeline"} <= told.keys()
        assert (told["timeline"].value, told["timeline"].seq) == ("By the end of March", 2)
        assert told["team"].by.startswith("taxonomy 1-")
        assert not told.keys() & set(open_dimensions(claim))
        rows = await p.query(_STORED)
        assert {(row["dimension"], row["seq"]) for row in rows} >= {("team", 1), ("budget", 1), ("timeline", 2)}


async def test_a_turn_that_another_owner_took_teaches_nothing(database_url: str, redis_url: str) -> None:
    """A plan that comes too late writes neither the turn nor its facts."""
    async with pipeline(database_url, redis_url) as p:
        turn = await _prepared(p, "c1", "Our budget is 50k.")

        assert not await p.inbox.queue(replace(turn, epoch=turn.epoch - 1), _plan(turn))

        assert await p.query(_STORED) == []


async def test_the_latest_of_a_dimension_stays_and_an_older_turn_cannot_take_its_place(
    database_url: str, redis_url: str
) -> None:
    """A later fact replaces the earlier one; what a late plan of an earlier turn says does not."""
    async with pipeline(database_url, redis_url) as p:
        await _say(p, "c1", "Our budget is 50k.")
        await _say(p, "c1", "Actually, our budget is 80k.")
        third = await _prepared(p, "c1", "Thanks")
        stale = Fact(dimension="budget", value="old", seq=1, confidence=1.0)
        plan = replace(_plan(third), brief=Brief(facts=(stale,)))
        assert await p.inbox.queue(replace(third, seq=1), plan)

        [budget] = [row for row in await p.query(_STORED) if row["dimension"] == "budget"]
        assert (budget["value"], budget["seq"]) == ("Actually, our budget is 80k.", 2)


async def test_no_dimension_is_asked_twice_in_a_long_conversation(database_url: str, redis_url: str) -> None:
    """Over fourteen turns, more than the window holds, each dimension is asked once, then the next steps."""
    async with pipeline(database_url, redis_url) as p:
        turns = [await _say(p, "c1", f"Well, number {n} is hard to say") for n in range(14)]

        asked = [str((await p.row(turn.turn_id))["dimension"]) for turn in turns]
        assert len(set(asked[:12])) == 12
        assert asked[12:] == ["next_steps", "next_steps"]


async def test_facts_go_with_their_conversation(database_url: str, redis_url: str) -> None:
    """Deleting a conversation, as retention does, leaves nothing that was learnt in it."""
    async with pipeline(database_url, redis_url) as p:
        await _say(p, "c1", "Our budget is 50k.")
        assert await p.query(_STORED)

        await p.query("DELETE FROM conversations WHERE conversation_id = 'c1'")

        assert await p.query(_STORED) == []


async def test_a_reply_is_worth_what_it_says(database_url: str, redis_url: str) -> None:
    """A reply that its own pattern finds counts most; one that evades closes the question and is no knowledge."""
    async with pipeline(database_url, redis_url) as p:
        await _say(p, "c1", "Prices matter to us")
        await _say(p, "c2", "Prices matter to us")
        await p.query("UPDATE turns SET dimension = 'budget'")

        told = await _prepared(p, "c1", "Our budget is 30 k")
        evaded = await _prepared(p, "c2", "No idea")

        [fact] = [f for f in facts_of(told, "en") if f.dimension == "budget"]
        [other] = [f for f in facts_of(evaded, "en") if f.dimension == "budget"]
        assert (fact.confidence, other.confidence) == (BOTH, EVADED)
