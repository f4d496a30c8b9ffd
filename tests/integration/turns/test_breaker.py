"""A primary that keeps failing is skipped, on real PostgreSQL and Redis, by one process and by several."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from infra.policy import load_policy
from infra.postgres.breakers import BreakerTable, read_breakers, set_breaker
from infra.postgres.engine import create_engine
from infra.postgres.statements import LedgerUnavailable
from infra.settings import Settings
from schemas.agents import Agent, Lane, lane_of
from schemas.completions import Unavailable
from schemas.ids import TurnId
from schemas.outcomes import FailedUnseen
from schemas.policy import BreakerPolicy, Policy
from tests.support.pipeline import Pipeline, pipeline, quick, until
from tests.support.proxy import proxy
from workers.breaker import OPEN, Breakers
from workers.lanes.process import AgentRuntime, agent_runtime

LANE = Lane.DISCOVERY
CALLS = 4
LONG, SHORT = 60.0, 0.2


def trying(**breaker: float) -> Policy:
    """A policy whose lanes open at half of four calls, for a minute unless told otherwise."""
    values = {"calls": CALLS, "open": LONG, **breaker}
    return quick(load_policy()).model_copy(update={"breaker": BreakerPolicy.model_validate(values)})


@asynccontextmanager
async def second_process(p: Pipeline, database_url: str, redis_url: str) -> AsyncGenerator[AgentRuntime]:
    """Another worker process beside the pipeline's own, with the same models."""
    settings = Settings(
        redis=redis_url,
        database=SecretStr(database_url),
        discovery_base_url=p.tgi.base_url,
        frontier_base_url=p.openai.base_url,
        metrics_port=-1,
        drain_seconds=5,
    )
    async with agent_runtime(settings, p.policy) as runtime:
        yield runtime


async def fail(p: Pipeline, times: int) -> None:
    """Let as many turns meet a primary that refuses, then be well again."""
    p.tgi.control(fault="status", status=503)
    for n in range(times):
        await p.say(f"failing-{n}", "Hello there")
    p.tgi.control(fault="none")


async def shared(p: Pipeline) -> tuple[object, ...]:
    """The lane's state in the table, what is set by hand, and why."""
    found = await p.query("SELECT state, forced, reason FROM breakers WHERE lane = :lane", lane=LANE.value)
    return tuple(found[0].values()) if found else ()


async def claim_note(p: Pipeline, turn: TurnId) -> object:
    """What the turn's history says of its claim."""
    [found] = await p.query(
        "SELECT note FROM turn_events WHERE turn_id = CAST(:t AS uuid) AND from_state = 'queued'", t=turn
    )
    return found["note"]


def breakers(p: Pipeline) -> Breakers:
    return p.runtime.executor.breakers


async def force(p: Pipeline, forced: str | None = None, *, away: float | None = None) -> None:
    """What an operator does, known to the process at once."""
    assert forced in ("open", "closed", "auto", None)
    await set_breaker(
        p.engine, LANE, forced=forced, away=away, reason="a test", tenant="acme", operator="0123456789abcdef"
    )
    await breakers(p).share()


async def test_a_lane_opens_when_half_of_enough_calls_fail(database_url: str, redis_url: str) -> None:
    """Below the number of calls nothing is concluded; with it the primary is skipped, and the history says so."""
    async with pipeline(database_url, redis_url, policy=trying()) as p:
        await fail(p, CALLS - 1)
        asked = await p.say("still-asked", "Hello there")
        assert p.calls(asked) == (1, 0)

        # Three of four have failed: the lane is open from now on.
        turn = await p.say("skipped", "Hello there")

        assert p.calls(turn) == (0, 1)
        assert (await p.row(turn))["state"] == "answered"
        assert await claim_note(p, turn) == OPEN
        await breakers(p).share()
        assert await shared(p) == ("open", None, "3 of 4 calls failed")


async def test_few_failures_among_many_calls_open_nothing(database_url: str, redis_url: str) -> None:
    """A share below the threshold keeps the lane closed, however many calls there are."""
    async with pipeline(database_url, redis_url, policy=trying()) as p:
        for n in range(CALLS + 1):
            await p.say(f"well-{n}", "Hello there")
        await fail(p, CALLS)
        turn = await p.say("after", "Hello there")
        assert p.calls(turn) == (1, 0)
        await breakers(p).share()
        assert await shared(p) == ()


async def test_failures_out_of_the_window_are_forgotten(database_url: str, redis_url: str) -> None:
    """Old failures do not add up with new ones."""
    async with pipeline(database_url, redis_url, policy=trying(window=0.001)) as p:
        await fail(p, CALLS + 2)
        turn = await p.say("after", "Hello there")
        assert p.calls(turn) == (1, 0)


async def test_a_cut_answer_counts_as_a_failure(database_url: str, redis_url: str) -> None:
    """Truncated turns open the lane as unseen failures do."""
    async with pipeline(database_url, redis_url, policy=trying()) as p:
        p.tgi.control(fault="cut", after_tokens=40)
        for n in range(CALLS):
            turn = await p.say(f"cut-{n}", "Hello there")
            assert (await p.row(turn))["state"] == "truncated"
        assert p.calls(await p.say("skipped", "Hello there")) == (0, 1)


async def test_one_process_opens_a_lane_for_all(database_url: str, redis_url: str) -> None:
    """A process that has met no failure skips the primary once another has opened the lane, and both open it once."""
    policy = trying()
    async with (
        pipeline(database_url, redis_url, policy=policy) as p,
        second_process(p, database_url, redis_url) as other,
    ):
        await fail(p, CALLS)
        await breakers(p).share()
        await until(lambda: shared(p))  # its own beat may be at it already
        [opened] = await p.query("SELECT since, changed_by FROM breakers")
        await other.executor.breakers.share()

        turn = await p.queue("elsewhere", "Hello there")
        await other.executor.run(turn, LANE)

        assert p.calls(turn) == (0, 1)
        assert await p.query("SELECT since, changed_by FROM breakers") == [opened]


async def test_many_that_open_at_once_are_one_opening(database_url: str, redis_url: str) -> None:
    """Two processes that conclude the same before they hear of each other write one row, once."""
    async with (
        pipeline(database_url, redis_url, policy=trying()) as p,
        second_process(p, database_url, redis_url) as other,
    ):
        tables = [breakers(p)._table, other.executor.breakers._table]  # pyright: ignore[reportPrivateUsage] - at once
        assert [await table.open(LANE, "4 of 4 calls failed") for table in tables] == [True, False]


async def test_an_open_lane_is_probed_by_one_turn_and_closes(database_url: str, redis_url: str) -> None:
    """Once its time has come one turn of two processes asks the primary; when it is answered both ask it again."""
    policy = trying(open=SHORT)
    async with (
        pipeline(database_url, redis_url, policy=policy) as p,
        second_process(p, database_url, redis_url) as other,
    ):
        both = breakers(p), other.executor.breakers
        await fail(p, CALLS)
        await breakers(p).share()
        await until_due(p)
        for one in both:
            await one.share()

        turns = [await p.queue(f"probe-{n}", "Hello there") for n in range(4)]
        asked = [await both[n % 2].skip(turn, LANE) for n, turn in enumerate(turns)]
        assert asked.count(None) == 1
        probing = asked.index(None)
        both[probing % 2].not_asked(turns[probing], LANE)
        await both[probing % 2].share()

        turn = await p.say("probe", "Hello there")
        assert p.calls(turn) == (1, 0)
        await breakers(p).share()
        assert await shared(p) == ("closed", None, "a probe was answered")
        await other.executor.breakers.share()
        after = await p.queue("after", "Hello there")
        await other.executor.run(after, LANE)
        assert p.calls(after) == (1, 0)


async def test_a_failed_probe_falls_back_and_opens_the_lane_again(database_url: str, redis_url: str) -> None:
    """A probe is an ordinary turn: when it fails the frontier answers it, and the next turn is no probe yet."""
    async with pipeline(database_url, redis_url, policy=trying(open=2.0)) as p:
        await fail(p, CALLS)
        await breakers(p).share()
        await until_due(p)
        p.tgi.control(fault="status", status=503)

        turn = await p.say("probe", "Hello there")

        assert (await p.row(turn))["state"] == "answered"
        assert p.calls(turn) == (1, 1)
        assert p.calls(await p.say("next", "Hello there")) == (0, 1)
        await breakers(p).share()
        assert await shared(p) == ("open", None, "a probe failed")


async def test_a_probe_whose_worker_died_is_given_to_another(database_url: str, redis_url: str) -> None:
    """The permission ends by itself, and a report that comes after that changes nothing."""
    async with (
        pipeline(database_url, redis_url, policy=trying(open=SHORT, probe=SHORT)) as p,
        second_process(p, database_url, redis_url) as other,
    ):
        await fail(p, CALLS)
        await breakers(p).share()
        await until_due(p)
        table = other.executor.breakers._table  # pyright: ignore[reportPrivateUsage] - a worker that dies with it
        lost = await table.probe(LANE)
        assert lost is not None
        await breakers(p).share()

        await until_due(p)
        await breakers(p).share()
        taken = await p.queue("next", "Hello there")
        assert await breakers(p).skip(taken, LANE) is None

        assert await table.report(LANE, lost, "answered") is False
        assert (await shared(p))[0] == "open"


async def test_a_probe_that_may_not_ask_leaves_it_to_the_next_turn(database_url: str, redis_url: str) -> None:
    """A hint that finds nothing to claim, or a turn that goes to the frontier anyway, does not use the probe up."""
    async with pipeline(database_url, redis_url, policy=trying(open=SHORT)) as p:
        await fail(p, CALLS)
        done = await p.say("done", "Hello there")
        await breakers(p).share()
        await until_due(p)

        await p.answer(done)
        await breakers(p).share()

        turn = await p.say("probe", "Hello there")
        assert p.calls(turn) == (1, 0)


async def test_what_is_set_by_hand_wins(database_url: str, redis_url: str) -> None:
    """Forced open skips a model that is well, forced closed asks one that is not, and neither is measured away."""
    async with pipeline(database_url, redis_url, policy=trying(open=SHORT)) as p:
        await force(p, "open")
        assert p.calls(await p.say("forced-open", "Hello there")) == (0, 1)
        await until_due(p)
        assert p.calls(await p.say("no-probe", "Hello there")) == (0, 1)

        await force(p, "closed")
        await fail(p, CALLS + 2)
        assert p.calls(await p.say("forced-closed", "Hello there")) == (1, 0)
        await breakers(p).share()
        assert (await shared(p))[:2] == ("closed", "closed")

        await force(p, "auto")
        assert p.calls(await p.say("measured", "Hello there")) == (1, 0)
        audited = await p.query("SELECT operator, verb, subject, detail FROM operator_audit ORDER BY audit_id")
        assert [row["detail"] for row in audited] == [
            {"forced": forced, "reason": "a test"} for forced in ("open", "closed", "auto")
        ]
        assert {(row["operator"], row["verb"], row["subject"]) for row in audited} == {
            ("0123456789abcdef", "breaker.force", "agent.discovery")
        }


async def test_a_drill_takes_the_primary_away_without_asking_it(database_url: str, redis_url: str) -> None:
    """Its calls fail unmade, are in the ledger and open the lane; the time over, the primary is asked again."""
    async with pipeline(database_url, redis_url, policy=trying(open=SHORT)) as p:
        await force(p, away=LONG)
        turns = [await p.say(f"away-{n}", "Hello there") for n in range(CALLS + 1)]
        assert {p.calls(turn) for turn in turns} == {(0, 1)}
        attempts = await p.query(
            "SELECT ordinal, error FROM attempts WHERE turn_id = CAST(:t AS uuid) ORDER BY ordinal", t=turns[0]
        )
        assert attempts == [{"ordinal": 1, "error": "unavailable"}, {"ordinal": 2, "error": None}]
        assert [await claim_note(p, turn) for turn in turns] == [None] * CALLS + [OPEN]

        await force(p, away=0)
        await until_due(p)
        assert p.calls(await p.say("back", "Hello there")) == (1, 0)


async def test_without_postgresql_what_was_known_holds(database_url: str, redis_url: str) -> None:
    """A process that cannot read the table keeps what it knew, goes on measuring, and writes it down once it can."""
    policy = trying()
    place = make_url(database_url)
    async with pipeline(database_url, redis_url, policy=policy) as p, proxy(str(place.host), place.port or 5432) as way:
        await force(p, "open")
        there = place.set(host="127.0.0.1", port=way.port).render_as_string(hide_password=False)
        engine = create_engine(there, pool_size=1)
        apart = Breakers(BreakerTable(engine, policy=policy.breaker, actor="agents@apart:1"), policy=policy.breaker)
        await apart.share()
        await way.close()

        with pytest.raises(LedgerUnavailable):
            await apart.share()
        assert await apart.skip(TurnId("a"), LANE) == OPEN
        for n in range(CALLS):
            apart.record(TurnId(f"b{n}"), Lane.SUPPORT, FailedUnseen(Unavailable("refused")))
        assert await apart.skip(TurnId("c"), Lane.SUPPORT) == OPEN
        with pytest.raises(LedgerUnavailable):
            await apart.share()
        assert await p.query("SELECT lane FROM breakers WHERE state = 'open'") == []

        await way.open()
        await apart.share()
        assert await p.query("SELECT lane FROM breakers WHERE state = 'open'") == [{"lane": Lane.SUPPORT.value}]
        await engine.dispose()


@pytest.mark.parametrize("agent", [Agent.SUPPORT, Agent.CONTENT_GENERATOR])
async def test_lanes_do_not_answer_for_each_other(database_url: str, redis_url: str, agent: Agent) -> None:
    """An open lane leaves the others closed."""
    async with pipeline(database_url, redis_url, policy=trying()) as p:
        await force(p, "open")
        assert await breakers(p).skip(TurnId("none"), lane_of(agent)) is None


async def until_due(p: Pipeline) -> None:
    """Wait until the lane's time, and a permission to probe it, has passed."""

    async def due() -> bool:
        found = await read_breakers(p.engine)
        return bool(found) and not any(breaker.retry_in or breaker.probe_in for breaker in found)

    await until(due)
    await breakers(p).share()
