"""From a claimed head to a queued turn: what is looked for, what is written down, at which price."""

import asyncio
from typing import Any, cast

import pytest
from sqlalchemy import event

from infra.policy import load_policy
from schemas.agents import Agent
from schemas.briefs import Brief
from schemas.guardrail_policy import AbusePolicy, GuardrailPolicy
from schemas.ids import TurnId
from schemas.knowledge import Passage, Retrieved
from tests.support.pipeline import Pipeline, content_of, pipeline
from workers.agents.phrases import phrases

FOUND = Retrieved(
    state="found",
    passages=(Passage(passage_id="1", source="https://docs.example/a", text="Restart it.", score=1.0),),
    answerable=True,
    score=0.9,
    snapshot="7",
)


async def found(tenant: str, text: str, *, language: str) -> Retrieved:
    """Return a knowledge base's answer."""
    assert (tenant, language) == ("acme", "en")
    return FOUND


async def never(tenant: str, text: str, *, language: str) -> Retrieved:
    """Return too late."""
    await asyncio.sleep(600)
    return FOUND


async def broken(tenant: str, text: str, *, language: str) -> Retrieved:
    """Fail as no researcher may."""
    raise RuntimeError("broken")


async def brief_of(p: Pipeline, turn_id: TurnId) -> tuple[dict[str, Any], Brief]:
    """Return the plan and the brief in the ledger."""
    plan = cast("dict[str, Any]", (await p.row(turn_id))["plan"])
    return plan, Brief.model_validate(plan["brief"])


async def test_what_was_found_is_written_down_with_its_versions(database_url: str, redis_url: str) -> None:
    """Plan and brief hold who decided, by which versions, and what was retrieved; it takes two round trips."""
    async with pipeline(database_url, redis_url, router="frontier", retrieve=found) as p:
        statements: list[str] = []
        event.listen(p.engine.sync_engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        turn_id = await p.record("c1", "The export shows an error since the update")
        statements.clear()
        await p.preparation.run(turn_id)
        asked = [one for one in statements if "turns" in one]
        assert len(asked) == 2, asked

        plan, brief = await brief_of(p, turn_id)
        assert (plan["agent"], plan["policy"], plan["direct"]) == (Agent.SUPPORT, p.policy.version, False)
        assert brief.router.startswith("frontier-1-")
        assert brief.retrieved == FOUND
        assert (brief.language, brief.phase, brief.confidence) == ("en", "customer", 0.9)
        assert p.calls(turn_id) == (0, 0), "routing is no answer"
        assert len(p.openai.requests()) == 1


@pytest.mark.parametrize(("retrieve", "state"), [(never, "late"), (broken, "failed")])
async def test_a_turn_does_not_wait_for_what_cannot_be_found(
    database_url: str, redis_url: str, retrieve: Any, state: str
) -> None:
    """Retrieval that is late or fails says so in the brief, and support says the rest: no certainty is pretended."""
    async with pipeline(database_url, redis_url, retrieve=retrieve, deadline=0.3) as p:
        plan, brief = await brief_of(p, await p.queue("c1", "The export shows an error since the update"))
        assert (brief.retrieved.state, brief.retrieved.answerable, plan["agent"]) == (state, False, Agent.SUPPORT)


async def test_what_the_fine_tuned_model_may_not_answer_goes_past_it(database_url: str, redis_url: str) -> None:
    """A wish for a binding price is discovery's, and its primary is skipped by plan; an ordinary one is not."""
    async with pipeline(database_url, redis_url) as p:
        turn_id = await p.say("c1", "Can you guarantee us the price for forty people?")
        plan, brief = await brief_of(p, turn_id)
        assert (plan["agent"], plan["direct"], brief.risk) == (Agent.DISCOVERY, True, "price_commitment")
        assert p.calls(turn_id) == (0, 1)
        other = await p.say("c1", "We lose track of stock between two warehouses")
        assert p.calls(other) == (1, 0)


async def test_a_question_asked_again_names_the_turn_that_answered_it(database_url: str, redis_url: str) -> None:
    """The brief says which turn of the conversation it was."""
    async with pipeline(database_url, redis_url) as p:
        await p.say("c1", "How many people do we need for the rollout?")
        plan, brief = await brief_of(p, await p.queue("c1", "how many people do we need for the rollout"))
        assert (plan["agent"], brief.repeats) == (Agent.ADAPTIVE_RESPONSE, 1)


SPAM = "Cheap traffic! https://a.example https://b.example https://c.example https://d.example"


async def test_spam_costs_no_model_call_and_is_told_so(database_url: str, redis_url: str) -> None:
    """Spam ends `rejected` in words of its language, unrouted and unanswered; later prompts know nothing of it."""
    async with pipeline(database_url, redis_url, router="frontier") as p:
        refused = await p.queue("c1", SPAM)
        row = await p.row(refused)
        assert (row["state"], row["reason"], row["agent"], row["plan"]) == ("rejected", "spam", None, None)
        assert len(p.openai.requests()) == 0
        assert content_of(await p.log(refused)) == f"<p>{phrases('en').refused}</p>"
        notes = await p.query(
            "SELECT note FROM turn_events WHERE turn_id = CAST(:t AS uuid) ORDER BY event_id", t=refused
        )
        assert notes[-1]["note"] == "4 links"
        assert await p.query("SELECT 1 FROM dead_letters") == []

        claim = await p.runtime.executor.claims.claim(await p.queue("c1", "We lose track of stock"))
        assert claim is not None
        assert claim.past == ()


async def test_what_the_policy_does_not_refuse_is_answered(database_url: str, redis_url: str) -> None:
    """An installation that refuses nothing answers spam with discovery's one sentence."""
    guardrails = GuardrailPolicy(abuse=AbusePolicy(refuse=()))
    policy = load_policy().model_copy(update={"guardrails": guardrails})
    async with pipeline(database_url, redis_url, policy=policy) as p:
        turn = await p.say("c1", SPAM)
        row = await p.row(turn)
        assert (row["state"], row["agent"]) == ("answered", Agent.DISCOVERY)


async def test_spam_to_a_person_reaches_that_person(database_url: str, redis_url: str) -> None:
    """Where a person has the conversation no message is refused: it is theirs to judge."""
    async with pipeline(database_url, redis_url) as p:
        await p.say("c1", "Hello there")
        await p.query("UPDATE conversations SET keeper = 'human'")
        assert (await p.row(await p.queue("c1", SPAM)))["state"] == "handed_off"
