"""Turns that no hint brought are found in the ledger by their own lane's workers."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.embedded.redis import RedisServer
from infra.policy import load_policy
from infra.postgres.waiting import Waiting
from infra.processes import end
from infra.settings import Settings
from infra.telemetry.pulse import Pulse
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.policy import Policy
from tests.support.children import child
from tests.support.pipeline import Pipeline, pipeline, until
from workers.lanes.door import Capacity
from workers.lanes.poll import Poll
from workers.orchestrator.process import orchestrator

LANES = (Lane.DISCOVERY, Lane.FRONTIER_FALLBACK)


@pytest.fixture
def own_redis(state_directory: Path) -> Iterator[RedisServer]:
    server = RedisServer(state=state_directory / "redis")
    server.start()
    yield server
    server.stop()


def _poll(p: Pipeline, *, places: int = 100, lanes: tuple[Lane, ...] = LANES) -> Poll:
    return Poll(
        waiting=Waiting(p.engine, lanes=lanes),
        redis=p.redis,
        lanes=lanes,
        capacity=Capacity(places),
        start=p.runtime.start,
        stopping=lambda: False,
        pulse=Pulse(),
    )


async def _wait(p: Pipeline, seconds: float) -> None:
    """Let every open turn have waited so much longer in its lane."""
    await p.query("UPDATE turns SET hinted_at = hinted_at - make_interval(secs => :s) WHERE done_at IS NULL", s=seconds)


async def _all_ended(p: Pipeline) -> bool:
    return not await p.query("SELECT 1 FROM turns WHERE done_at IS NULL")


async def test_a_turn_whose_hint_was_lost_is_found_and_its_late_hint_is_nothing(
    database_url: str, redis_url: str
) -> None:
    """A fresh turn is left to its hint; one that waits too long is found, and a hint then makes no second call."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        poll = _poll(p)

        assert await poll.run_once() == 0
        await _wait(p, 5)
        assert await poll.run_once() == 1
        assert await poll.run_once() == 0
        await until(lambda: _all_ended(p))
        await p.answer(turn)

        assert (await p.row(turn))["state"] == "answered"
        assert p.calls(turn) == (1, 0)


async def test_a_turn_that_was_hinted_again_in_vain_is_found_sooner(database_url: str, redis_url: str) -> None:
    """A turn whose second hint was not taken either does not wait for the whole time once more."""
    async with pipeline(database_url, redis_url) as p:
        await p.queue("c1", "Hello there")
        poll = _poll(p)
        await _wait(p, 3)
        assert await poll.run_once() == 0
        await p.sweeper.resend_lost_hints()
        assert await poll.run_once() == 0
        await _wait(p, 1.1)
        assert await poll.run_once() == 1
        await until(lambda: _all_ended(p))


async def test_a_hint_and_a_look_at_once_make_one_call(database_url: str, redis_url: str) -> None:
    """Workers that find a turn while its hint arrives elsewhere share one claim: one call is made for each of 20."""
    async with pipeline(database_url, redis_url) as p:
        turns = [await p.queue(f"c{n}", "Hello there") for n in range(20)]
        await _wait(p, 5)

        found = await asyncio.gather(_poll(p).run_once(), _poll(p).run_once(), *(p.answer(turn) for turn in turns))
        await until(lambda: _all_ended(p))

        assert sum(n for n in found if n is not None) <= 20
        assert {p.calls(turn) for turn in turns} == {(1, 0)}


async def test_nobody_looks_for_more_than_there_is_room_for_or_in_other_lanes(
    database_url: str, redis_url: str
) -> None:
    """With two places two turns are taken, with none none; turns of a lane that is not served are left alone."""
    async with pipeline(database_url, redis_url, first_token_ms=300) as p:
        for n in range(5):
            await p.queue(f"c{n}", "Hello there")
        await _wait(p, 5)

        assert await _poll(p, lanes=(Lane.SUPPORT, Lane.FRONTIER_FALLBACK)).run_once() == 0
        two = _poll(p, places=2)
        assert await two.run_once() == 2
        assert await two.run_once() == 0
        await until(lambda: not p.runtime.tasks)
        assert await two.run_once() == 2


async def test_a_rescue_that_nobody_was_told_of_is_found(database_url: str, redis_url: str) -> None:
    """A turn that waits for its rescue is found by those who serve that lane, and answered by one frontier call."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        await p.query("UPDATE turns SET head_at = head_at - interval '11 s'")
        await p.sweeper.rescue_unseen()
        await _wait(p, 5)

        assert await _poll(p, lanes=(Lane.DISCOVERY,)).run_once() == 0
        assert await _poll(p).run_once() == 1
        await until(lambda: _all_ended(p))

        assert ((await p.row(turn))["source"], p.calls(turn)) == ("fallback", (0, 1))


async def test_a_consumer_that_takes_no_hints_is_told_of(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hints that lie there while places are free make a process unhealthy; not a full one, nor after one is taken."""
    monkeypatch.setattr("workers.lanes.poll.CATATONIC_SECONDS", 0.2)
    async with pipeline(database_url, redis_url) as p:
        await p.queue("c1", "Hello there")
        idle, full = _poll(p), _poll(p, places=0)

        async def healths() -> list[str | None]:
            for poll in (idle, full):
                await poll.run_once()
            await asyncio.sleep(0.3)
            return [poll.health()["hints"] for poll in (idle, full)]

        stuck, busy = await healths()
        assert stuck is not None
        assert "none taken" in stuck
        assert busy is None
        idle.hint_taken()
        assert idle.health() == {"hints": None}
        await healths()
        await p.redis.flushall()
        assert await healths() == [None, None]


@asynccontextmanager
async def _system(p: Pipeline, kafka: str, database_url: str, redis_url: str, log: Path) -> AsyncGenerator[None]:
    """A worker process of its own, an orchestrator that takes nothing in, and upkeep's sweep each second."""
    env = {
        "FAIRLEAD_DATABASE": database_url,
        "FAIRLEAD_REDIS": redis_url,
        "FAIRLEAD_DISCOVERY_BASE_URL": p.tgi.base_url,
        "FAIRLEAD_FRONTIER_BASE_URL": p.openai.base_url,
        "FAIRLEAD_METRICS_PORT": "-1",
        "FAIRLEAD_LOG_FORMAT": "json",
    }
    settings = Settings(
        kafka=kafka,
        redis=redis_url,
        database=SecretStr(database_url),
        discovery_base_url=p.tgi.base_url,
        frontier_base_url=p.openai.base_url,
    )

    async def sweep() -> None:
        while True:
            await p.sweeper.run_once()
            await asyncio.sleep(1)

    words = [word for lane in LANES for word in ("--lane", lane.value)]
    async with child("agents", *words, env=env, log=log), orchestrator(settings) as process:
        await p.queue("first", "Hello there")
        await until(lambda: _all_ended(p), seconds=40)
        beats = [asyncio.create_task(process.find_for_ever()), asyncio.create_task(sweep())]
        try:
            yield
        finally:
            await end(beats)


def _with_queue(seconds: float) -> Policy:
    policy = load_policy()
    return policy.model_copy(update={"deadlines": policy.deadlines.model_copy(update={"queue": seconds})})


async def test_an_outage_of_redis_longer_than_the_queue_deadline_costs_a_second_or_two(
    memory_kafka: str, database_url: str, own_redis: RedisServer, state_directory: Path
) -> None:
    """Turns from before and during it, later ones of a conversation too, are answered by their primary, once."""
    async with (
        pipeline(database_url, own_redis.address, policy=_with_queue(7), first_token_ms=500) as p,
        _system(p, memory_kafka, database_url, own_redis.address, state_directory / "log"),
    ):
        turns = [await p.queue(f"c{n}", "Hello there") for n in range(5)]
        turns += [await p.record(f"c{n}", "Hello again") for n in range(5)]
        own_redis.kill()
        turns += [await p.queue(f"d{n}", "Hello there") for n in range(5)]
        turns += [await p.record(f"d{n}", "Hello again") for n in range(5)]
        await asyncio.sleep(8)
        turns += [await p.record("c0", "Still there?")]
        await until(lambda: _all_ended(p), seconds=20)
        own_redis.restart()
        turns += [await p.queue("e0", "Hello there")]
        await until(lambda: _all_ended(p), seconds=20)

        await _answered_once(p, turns)


async def test_a_redis_that_answers_nothing_costs_a_few_seconds(
    memory_kafka: str, database_url: str, own_redis: RedisServer, state_directory: Path
) -> None:
    """A frozen Redis, which holds every caller up until its limit, is no cause of a rescue or a second call either."""
    async with (
        pipeline(database_url, own_redis.address) as p,
        _system(p, memory_kafka, database_url, own_redis.address, state_directory / "log"),
    ):
        own_redis.pause()
        try:
            turns = [await p.record(f"c{n}", "Hello there") for n in range(3)]
            turns += [await p.record(f"c{n}", "Hello again") for n in range(3)]
            await until(lambda: _all_ended(p), seconds=40)
        finally:
            own_redis.resume()

        await _answered_once(p, turns)


async def _answered_once(p: Pipeline, turns: list[TurnId]) -> None:
    rows = [await p.row(turn) for turn in turns]
    assert {(row["state"], row["source"]) for row in rows} == {("answered", "primary")}
    assert {p.calls(turn) for turn in turns} == {(1, 0)}
    assert await p.query("SELECT reason FROM dead_letters") == []
