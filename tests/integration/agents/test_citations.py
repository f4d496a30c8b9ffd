"""Sources and passages of a turn, from the plan to the screen, on real PostgreSQL and Redis."""

from infra.policy import load_policy
from infra.postgres.inbox import Plan
from infra.postgres.views import load_turn
from producers.gateway.turns import details_of
from schemas.agents import Agent, lane_of
from schemas.briefs import Brief
from schemas.frames import Phase
from schemas.ids import TurnId
from schemas.knowledge import Passage, Retrieved
from tests.support.pipeline import Pipeline, content_of, pipeline, quick

PAGES = tuple(
    Passage(passage_id=f"p{n}", source=f"https://docs.example/{n}", title=f"Page {n}", text=f"Hold button {n} down.")
    for n in (1, 2)
)
FOUND = Brief(retrieved=Retrieved(state="found", passages=PAGES, answerable=True, score=0.9))


async def _queue(p: Pipeline, agent: Agent, text: str, brief: Brief = FOUND) -> TurnId:
    """Bring a message to an agent's lane with what an orchestrator would have found."""
    turn = await p.record("c1", text)
    prepared = await p.inbox.prepare(turn)
    assert prepared is not None
    plan = Plan(agent, "frontier", "frontier-lite", direct=False, why="test", policy=1, brief=brief)
    assert await p.inbox.queue(prepared, plan)
    return turn


async def test_what_an_answer_cites_is_shown_streamed_and_kept(database_url: str, redis_url: str) -> None:
    """A cited passage ends the streamed answer, is a source of the turn, and is known to the next turn as read."""
    async with pipeline(database_url, redis_url) as p:
        turn = await _queue(p, Agent.SUPPORT, "My scanner shows an error")
        await p.answer(turn, lane_of(Agent.SUPPORT))

        row, frames = await p.row(turn), await p.log(turn)
        view = await load_turn(p.engine, turn)
        assert row["state"] == "answered"
        assert str(row["content"]).endswith(
            '<p>Sources: [1] <a href="https://docs.example/1" rel="noopener noreferrer nofollow">Page 1</a></p>'
        )
        assert content_of(frames) == row["content"]
        assert frames[-1].phase is Phase.DONE
        assert view is not None
        sources = details_of(view).sources
        assert [(s.number, s.name, s.url) for s in sources] == [(1, "Page 1", "https://docs.example/1")]

        again = await _queue(p, Agent.ADAPTIVE_RESPONSE, "My scanner shows an error again")
        claim = await p.runtime.executor.claims.claim(again)
        assert claim is not None
        assert [past.read for past in claim.past] == [("p1", "p2")]
        [asked] = p.openai.requests(turn)
        assert asked["outcome"] == "answered"


async def test_an_answer_in_old_words_is_never_seen(database_url: str, redis_url: str) -> None:
    """A model that says again what it said is malformed before the commit point; the turn ends without that text."""
    async with pipeline(database_url, redis_url, policy=quick(load_policy())) as p:
        first = await _queue(p, Agent.CONTENT_GENERATOR, "My scanner shows an error", Brief())
        await p.answer(first, lane_of(Agent.CONTENT_GENERATOR))
        said = str((await p.row(first))["content"])
        again = await _queue(p, Agent.ADAPTIVE_RESPONSE, "My scanner shows an error")
        await p.answer(again, lane_of(Agent.ADAPTIVE_RESPONSE))

        row, frames = await p.row(again), await p.log(again)
        assert said
        assert (row["state"], row["reason"], row["content"]) == ("bounded", "malformed", "")
        assert content_of(frames) == p.policy.bounded_reply
        assert len(p.openai.requests(again)) == 2


async def test_the_last_tier_quotes_what_was_found_without_a_third_call(database_url: str, redis_url: str) -> None:
    """Where the policy says offline, a turn that no model answered ends bounded with a quotation and its source."""
    policy = quick(load_policy()).model_copy(update={"without_answer": "offline"})
    async with pipeline(database_url, redis_url, policy=policy) as p:
        p.openai.control(fault="status", status=503)
        turn = await _queue(p, Agent.SUPPORT, "Which button do I hold?")
        await p.answer(turn, lane_of(Agent.SUPPORT))

        row, frames = await p.row(turn), await p.log(turn)
        assert (row["state"], row["source"], row["content"]) == ("bounded", "offline", "")
        assert "(offline) Our documentation says:" in str(row["closing"])
        assert "https://docs.example/1" in str(row["closing"])
        assert content_of(frames) == row["closing"]
        assert frames[-1].phase is Phase.FAILED
        assert len(p.openai.requests(turn)) == 2
        view = await load_turn(p.engine, turn)
        assert view is not None
        assert [one.passage_id for one in view.cited] == ["p1", "p2"]
        assert await p.query("SELECT state FROM dead_letters") == [{"state": "unanswered"}]
