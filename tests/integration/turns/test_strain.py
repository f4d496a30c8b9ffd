"""The loops and sweeps of a worker and of upkeep, where one turn or one server misbehaves."""

import asyncio
from pathlib import Path

from sqlalchemy import text

from infra.celery.dispatch import MAX_HINTS, Dispatcher, Hint
from infra.embedded.redis import RedisServer
from infra.policy import load_policy
from infra.postgres.claims import Checkpoint
from infra.processes import end
from infra.redis.client import create_redis
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import log_key
from tests.support.pipeline import Pipeline, pipeline, quick, until


async def _age(p: Pipeline, turn: TurnId, column: str) -> None:
    await p.query(
        f"UPDATE turns SET {column} = clock_timestamp() - interval '1 hour' WHERE turn_id = CAST(:t AS uuid)",
        t=turn,
    )


async def test_the_lease_loop_outlives_an_error_nobody_foresaw(database_url: str, redis_url: str) -> None:
    """Leases are renewed again once whatever made renewing impossible is over."""
    async with pipeline(database_url, redis_url, policy=quick(load_policy(), lease=1), inter_token_ms=60) as p:
        turn = await p.queue("c1", "Hello there")
        answering = asyncio.create_task(p.answer(turn))
        live = p.runtime.executor.live
        await until(lambda: len(live) == 1)
        await p.query("ALTER TABLE turns RENAME COLUMN lease_until TO lease_away")
        await asyncio.sleep(0.7)
        await p.query("ALTER TABLE turns RENAME COLUMN lease_away TO lease_until")

        seen = live.last_renewal
        await until(lambda: live.last_renewal > seen)
        await end([answering])


async def test_one_broken_log_keeps_no_other_turn_from_its_end(database_url: str, redis_url: str) -> None:
    """A sweep ends every turn it can, though one of them has a log that nobody can read."""
    async with pipeline(database_url, redis_url) as p:
        turns = [await _left_in_mid_stream(p, f"c{n}") for n in range(5)]
        late = await p.queue("late", "Hello there")
        await _age(p, late, "deadline_at")
        broken = min(turns)
        await p.redis.rpush(log_key(broken), "not a frame")
        for turn in turns:
            await _age(p, turn, "lease_until")

        await p.sweeper.run_once()

        states = {turn: (await p.row(turn))["state"] for turn in (*turns, late)}
        assert states.pop(broken) == "sealing"
        assert states.pop(late) == "bounded"
        assert set(states.values()) == {"truncated"}


async def _left_in_mid_stream(p: Pipeline, conversation: str) -> TurnId:
    turn = await p.queue(conversation, "Hello there")
    executor = p.runtime.executor
    claim = await executor.claims.claim(turn)
    assert claim is not None
    writer = await executor.arm(claim)
    assert await executor.show(claim, writer, 1, "<p>We count")
    await executor.publisher.drain(writer)
    return turn


async def test_a_redis_that_does_not_answer_holds_up_no_deadline(
    database_url: str, redis_server: RedisServer, redis_url: str
) -> None:
    """Turns past their deadline end together, not one wait for Redis after the other."""
    async with pipeline(database_url, redis_url) as p:
        turns = [await p.queue(f"c{n}", "Hello there") for n in range(30)]
        for turn in turns:
            await _age(p, turn, "deadline_at")
        redis_server.pause()
        sweeping = asyncio.create_task(p.sweeper.end_late())
        try:
            await until(lambda: _all_done(p), seconds=20)
        finally:
            redis_server.resume()
            await sweeping


async def _all_done(p: Pipeline) -> bool:
    return not await p.query("SELECT 1 FROM turns WHERE done_at IS NULL")


async def test_a_turn_rescued_by_the_frontier_uses_up_the_way_there(database_url: str, redis_url: str) -> None:
    """After a truncated turn only one turn goes to the frontier, though it got there past its queue's deadline."""
    async with pipeline(database_url, redis_url) as p:
        p.tgi.control(fault="close", after_tokens=40, times=1)
        await p.say("c1", "Hello there")
        second = await p.queue("c1", "We count stock by hand")
        await _age(p, second, "head_at")
        await p.sweeper.run_once()
        await p.answer(second, Lane.FRONTIER_FALLBACK)
        third = await p.say("c1", "About forty people")

        assert p.calls(second) == (0, 1)
        assert p.calls(third) == (1, 0)


async def test_hints_for_a_lane_without_workers_do_not_fill_redis(database_url: str, redis_url: str) -> None:
    """A lane keeps its newest hints only: older ones are for turns that have long gone elsewhere."""
    async with pipeline(database_url, redis_url) as p:
        hints = [Hint(TurnId(f"00000000-0000-0000-0000-{n:012}"), Lane.DISCOVERY) for n in range(MAX_HINTS // 4)]
        for _ in range(6):
            assert await Dispatcher(p.redis).send(hints)

        assert await p.hints(Lane.DISCOVERY) == MAX_HINTS


async def test_a_renewal_that_waited_for_the_settlement_keeps_the_turn(database_url: str, redis_url: str) -> None:
    """A renewal that finds the row locked by the turn's own end does not take the turn for lost."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        claims = p.runtime.executor.claims
        claim = await claims.claim(turn)
        assert claim is not None
        transactional = p.engine.execution_options(isolation_level="READ COMMITTED")
        async with transactional.begin() as settling:
            await settling.execute(text("UPDATE turns SET state = 'answered', done_at = clock_timestamp()"))
            renewing = asyncio.create_task(claims.renew([Checkpoint(turn, claim.epoch, "", ())]))
            await until(lambda: _waits_for_a_lock(p))

        assert await renewing == {turn}


async def _waits_for_a_lock(p: Pipeline) -> bool:
    return bool(await p.query("SELECT 1 FROM pg_locks WHERE NOT granted"))


async def test_a_redis_that_was_restarted_is_used_at_once(state_directory: Path) -> None:
    """The first command after a restart works on every connection that was open before it."""
    server = RedisServer(state=state_directory)
    await asyncio.to_thread(server.start)
    redis = create_redis(server.address)
    try:
        await asyncio.gather(*(redis.blpop(["nothing"], timeout=0.2) for _ in range(8)))
        await asyncio.to_thread(server.restart)

        assert await asyncio.gather(*(redis.set(f"k{n}", "v") for n in range(8)))
    finally:
        await redis.aclose()
        await asyncio.to_thread(server.stop)
