"""The budget of rescues: never more than there are tokens, whoever asks."""

import asyncio

from sqlalchemy import text

from infra.postgres.rescue_budget import ALLOWED_SQL, budget_values
from infra.postgres.statements import rows
from schemas.ids import TurnId
from schemas.policy import RescueBudget
from tests.support.pipeline import Pipeline, pipeline

_ASK = text(f"""
WITH due AS (
    SELECT turn_id, state FROM turns WHERE turn_id = ANY(CAST(:turns AS uuid[])) FOR UPDATE SKIP LOCKED
), {ALLOWED_SQL}, moved AS (
    UPDATE turns t SET reason = 'allowed' FROM allowed a WHERE t.turn_id = a.turn_id RETURNING t.turn_id
)
SELECT turn_id::text FROM moved
""")


async def _ask(p: Pipeline, budget: RescueBudget, turns: list[TurnId]) -> set[str]:
    """Return the turns that the budget lets be rescued."""
    return {str(r["turn_id"]) for r in await rows(p.engine, _ASK, {"turns": turns, **budget_values(budget)})}


async def _waiting(p: Pipeline, count: int) -> list[TurnId]:
    """Put turns into the ledger, the last of them being the oldest."""
    turns = [await p.record(f"c{n}", "Hello there") for n in range(count)]
    for age, turn in enumerate(turns):
        await p.query(
            "UPDATE turns SET head_at = now() - make_interval(secs => :age) WHERE turn_id = CAST(:t AS uuid)",
            age=10 + age,
            t=turn,
        )
    return turns


async def test_a_burst_is_allowed_oldest_first_and_then_no_more(database_url: str, redis_url: str) -> None:
    """Of five turns and three tokens the three oldest are allowed; afterwards none is until time has passed."""
    async with pipeline(database_url, redis_url) as p:
        turns = await _waiting(p, 5)
        budget = RescueBudget(per_minute=60, burst=3)

        assert await _ask(p, budget, []) == set()
        assert await p.query("SELECT 1 FROM rescue_budget") == []
        assert await _ask(p, budget, turns) == set(turns[2:])
        assert await _ask(p, budget, turns[:2]) == set()

        await p.query("UPDATE rescue_budget SET refilled_at = refilled_at - interval '1.2 s'")
        assert await _ask(p, budget, turns[:2]) == {turns[1]}
        await p.query("UPDATE rescue_budget SET refilled_at = refilled_at - interval '1 day'")
        assert await _ask(p, budget, turns) == set(turns[2:])


async def test_what_is_not_used_is_kept_up_to_the_burst(database_url: str, redis_url: str) -> None:
    """Taking one token leaves the others, fractions too; a policy with a smaller burst empties the rest."""
    async with pipeline(database_url, redis_url) as p:
        turns = await _waiting(p, 4)
        assert await _ask(p, RescueBudget(per_minute=6, burst=4), turns[:1]) == {turns[0]}
        await p.query("UPDATE rescue_budget SET tokens = 2.5, refilled_at = now() + interval '1 hour'")
        assert len(await _ask(p, RescueBudget(per_minute=6, burst=4), turns[:1])) == 1
        assert await p.query("SELECT tokens FROM rescue_budget") == [{"tokens": 1.5}]
        assert len(await _ask(p, RescueBudget(per_minute=6, burst=1), turns)) == 1
        assert await p.query("SELECT tokens FROM rescue_budget") == [{"tokens": 0.0}]


async def test_upkeeps_at_once_share_one_budget(database_url: str, redis_url: str) -> None:
    """Ten askers at once, from an empty table on, are together given the burst and not one turn more."""
    async with pipeline(database_url, redis_url) as p:
        turns = await _waiting(p, 40)
        budget = RescueBudget(per_minute=0.001, burst=17)

        given = await asyncio.gather(*(_ask(p, budget, turns[n::10]) for n in range(10)))
        again = await asyncio.gather(*(_ask(p, budget, turns[n::10]) for n in range(10)))

        allowed = [turn for some in given for turn in some]
        assert len(allowed) == len(set(allowed)) == 17
        assert [turn for some in again for turn in some] == []
