"""Turns that lost their owner, their hint or their time still end, once."""

import asyncio
from dataclasses import replace

import pytest

from infra.postgres.claims import Checkpoint
from infra.postgres.sweeps import Sweeps
from infra.redis.frame_log import Append, Stream, Verdict
from schemas.agents import Lane
from schemas.frames import Phase, TurnStreamInfo, render
from schemas.ids import TurnId
from schemas.names import TOPIC_DEAD_LETTERS, TOPIC_RESULTS
from tests.support.pipeline import Pipeline, content_of, pipeline, until
from workers.answers.writer import FrameWriter


async def _age(p: Pipeline, turn: TurnId, **columns: float) -> None:
    """Move the turn's clocks into the past, on the database's own clock."""
    for column, seconds in columns.items():
        await p.query(
            f"UPDATE turns SET {column} = {column} - make_interval(secs => :s) WHERE turn_id = CAST(:t AS uuid)",
            s=seconds,
            t=turn,
        )


async def test_a_lost_hint_is_sent_again(database_url: str, redis_url: str) -> None:
    """A queued turn whose hint vanished is hinted again, later each time, and then answered once."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        await p.redis.flushall()

        await p.sweeper.run_once()
        assert await p.hints(Lane.DISCOVERY) == 0
        await _age(p, turn, hinted_at=3)
        await p.sweeper.run_once()
        await p.sweeper.run_once()

        assert await p.hints(Lane.DISCOVERY) == 1
        await p.answer(turn)
        assert (await p.row(turn))["state"] == "answered"
        assert p.calls(turn) == (1, 0)


async def test_a_head_that_no_orchestrator_prepares_is_announced_again(database_url: str, redis_url: str) -> None:
    """A recorded turn whose orchestrator died before preparing it is found and prepared."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.record("c1", "Hello there")
        await _age(p, turn, created_at=3)

        assert await p.sweeper.sweeps.wakeable() == [turn]
        await p.preparation.run(turn)

        assert await p.sweeper.sweeps.wakeable() == []
        assert (await p.row(turn))["state"] == "queued"


async def test_an_orchestrator_that_dies_while_preparing_is_replaced(database_url: str, redis_url: str) -> None:
    """A preparation whose lease ended is taken over under a new epoch; the old one can queue nothing."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.record("c1", "Hello there")
        dead = await p.inbox.prepare(turn)
        assert dead is not None
        assert await p.inbox.prepare(turn) is None
        await _age(p, turn, lease_until=60)

        assert await p.sweeper.sweeps.wakeable() == [turn]
        await p.preparation.run(turn)

        assert (await p.row(turn))["state"] == "queued"
        assert not await p.inbox.queue(dead, await p.preparation.plan(dead))


async def test_a_lane_without_workers_costs_its_deadline_and_the_frontier_answers(
    database_url: str, redis_url: str
) -> None:
    """Past the queue deadline the turn is rescued by one frontier call, with a dead letter that says so."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        await _age(p, turn, head_at=11)

        await p.sweeper.run_once()
        assert (await p.row(turn))["state"] == "rescue"
        assert await p.hints(Lane.FRONTIER_FALLBACK) == 0
        await p.route_dead_letters()
        assert await p.hints(Lane.FRONTIER_FALLBACK) == 1
        await p.answer(turn)
        assert p.calls(turn) == (0, 0)
        await p.answer(turn, Lane.FRONTIER_FALLBACK)

        row = await p.row(turn)
        assert (row["state"], row["source"]) == ("answered", "fallback")
        assert p.calls(turn) == (0, 1)
        letters = await p.query("SELECT reason, state FROM dead_letters")
        assert letters == [{"reason": "queue_deadline", "state": "answered_by_fallback"}]


async def test_a_worker_lost_before_visible_text_is_rescued(database_url: str, redis_url: str) -> None:
    """The lease of a dead worker ends, the frontier answers, and the dead worker's epoch can write nothing."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        claims = p.runtime.executor.claims
        dead = await claims.claim(turn)
        assert dead is not None
        writer = await p.runtime.executor.arm(dead)
        await _age(p, turn, lease_until=60)

        await p.sweeper.run_once()
        await p.answer(turn, Lane.FRONTIER_FALLBACK)

        row = await p.row(turn)
        frames = await p.log(turn)
        assert (row["state"], row["source"]) == ("answered", "fallback")
        assert not await claims.latch_visible(dead, 1)
        assert not await claims.latch_fallback(dead, "timeout")
        writer.write("late words")
        await p.runtime.executor.publisher.drain(writer)
        assert writer.lost.is_set()
        assert await p.log(turn) == frames
        assert content_of(frames) == row["content"]


async def test_a_worker_lost_in_its_fallback_leaves_no_second_one(database_url: str, redis_url: str) -> None:
    """A turn whose one fallback is used up is parked, and its visitor told, instead of a third call."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        dead = await p.runtime.executor.claims.claim(turn)
        assert dead is not None
        assert await p.runtime.executor.claims.latch_fallback(dead, "timeout")
        await _age(p, turn, lease_until=60)

        await p.sweeper.run_once()
        await p.answer(turn, Lane.FRONTIER_FALLBACK)
        await p.route_dead_letters()

        row = await p.row(turn)
        assert (row["state"], row["reason"]) == ("parked", "worker_lost")
        assert p.calls(turn) == (0, 0)
        frames = await p.log(turn)
        assert [frame.phase for frame in frames] == [Phase.ROUTED, Phase.FAILED]
        assert content_of(frames) == p.policy.bounded_reply


async def test_a_turn_that_leaves_its_lanes_twice_has_one_dead_letter(database_url: str, redis_url: str) -> None:
    """Late in its lane, then lost by its rescuer: the second reason takes the first one's place, and upkeep goes on."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        await _age(p, turn, head_at=11)
        await p.sweeper.run_once()
        assert await p.runtime.executor.claims.rescue(turn) is not None
        await _age(p, turn, lease_until=60)

        await p.sweeper.run_once()
        await p.route_dead_letters()

        assert (await p.row(turn))["state"] == "parked"
        letters = await p.query("SELECT reason, state, times FROM dead_letters")
        assert letters == [{"reason": "worker_lost", "state": "unanswered", "times": 2}]


@pytest.mark.parametrize("finished", [False, True], ids=["in mid-stream", "after the model's end"])
async def test_a_worker_lost_in_mid_stream_keeps_what_was_visible(
    database_url: str, redis_url: str, *, finished: bool
) -> None:
    """What was shown stays: truncated with its tags closed, or answered if the model had finished."""
    async with pipeline(database_url, redis_url) as p:
        turn, writer = await _streaming_then_dead(p, finished=finished)
        await _age(p, turn, lease_until=60)

        await p.sweeper.run_once()

        row = await p.row(turn)
        frames = await p.log(turn)
        assert row["state"] == ("answered" if finished else "truncated")
        assert row["content"] == "<p>We count <strong>every"
        assert row["closing"] == (None if finished else "</strong></p>")
        assert content_of(frames) == str(row["content"]) + str(row["closing"] or "")
        assert [frame.seq for frame in frames] == [1, 2, 3, 4]
        [forced] = await p.query("SELECT force_frontier_next FROM conversations")
        assert forced["force_frontier_next"] is not finished
        writer.write(" pallet")
        await p.runtime.executor.publisher.drain(writer)
        assert await p.log(turn) == frames


async def _streaming_then_dead(p: Pipeline, *, finished: bool = False) -> tuple[TurnId, FrameWriter]:
    turn = await p.queue("c1", "Hello there")
    executor = p.runtime.executor
    claim = await executor.claims.claim(turn)
    assert claim is not None
    writer = await executor.arm(claim)
    for piece in ("<p>We count ", "<strong>every"):
        assert await executor.show(claim, writer, 1, piece)
        await executor.publisher.drain(writer)
    if finished:
        writer.finish()
        await executor.publisher.drain(writer)
    return turn, writer


async def test_a_lost_stream_that_redis_forgot_is_ended_from_its_checkpoint(database_url: str, redis_url: str) -> None:
    """With worker and Redis both gone, the checkpoint in the ledger is what stays on the screen."""
    async with pipeline(database_url, redis_url) as p:
        turn, writer = await _streaming_then_dead(p)
        [claim_row] = await p.query("SELECT epoch FROM turns")
        await p.runtime.executor.claims.renew(
            [Checkpoint(turn, int(str(claim_row["epoch"])), writer.content, writer.cuts)]
        )
        await p.redis.flushall()
        await _age(p, turn, lease_until=60)

        await p.sweeper.run_once()

        row = await p.row(turn)
        assert (row["state"], row["content"]) == ("truncated", "<p>We count <strong>every")
        assert [frame.seq for frame in await p.log(turn)] == [1, 2, 3, 4]


async def test_a_turn_past_its_deadline_ends_bounded_whatever_its_state(database_url: str, redis_url: str) -> None:
    """Received, queued or running: past the deadline the visitor is told, and the next turn may start."""
    async with pipeline(database_url, redis_url) as p:
        received = await p.record("c1", "Hello there")
        queued = await p.queue("c2", "Hello there")
        running = await p.queue("c3", "Hello there")
        behind = await p.record("c3", "Are you there?")
        claim = await p.runtime.executor.claims.claim(running)
        for turn in (received, queued, running):
            await _age(p, turn, deadline_at=10_000)

        await p.sweeper.run_once()

        for turn in (received, queued, running):
            row = await p.row(turn)
            assert (row["state"], row["reason"]) == ("bounded", "turn_deadline")
            assert (await p.log(turn))[-1].phase is Phase.FAILED
        assert [f.phase for f in await p.log(received)] == [Phase.FAILED]
        assert claim is not None
        assert not await p.runtime.executor.claims.latch_visible(claim, 1)
        await p.preparation.run(behind)
        assert (await p.row(behind))["state"] == "queued"


async def test_a_frozen_worker_that_thaws_writes_nothing(database_url: str, redis_url: str) -> None:
    """A worker that loses its lease in mid-stream is stopped by its own lease loop and shows no more."""
    async with pipeline(database_url, redis_url, inter_token_ms=20) as p:
        turn = await p.queue("c1", "Hello there")
        answering = asyncio.create_task(p.answer(turn))
        await until(lambda: _shown(p, turn))
        await _age(p, turn, lease_until=60)
        await p.sweeper.run_once()
        frames = await p.log(turn)

        await p.runtime.executor.live.renew()
        await asyncio.gather(answering, return_exceptions=True)

        row = await p.row(turn)
        assert row["state"] == "truncated"
        assert await p.log(turn) == frames
        assert content_of(frames) == str(row["content"]) + str(row["closing"] or "")
        assert p.calls(turn) == (1, 0)


async def _shown(p: Pipeline, turn: TurnId) -> bool:
    return len(await p.log(turn)) >= 3


async def test_two_upkeeps_at_once_end_every_turn_once(database_url: str, redis_url: str) -> None:
    """Sweeps in parallel share the work: each turn has one ending, one dead letter and one result."""
    async with pipeline(database_url, redis_url) as p:
        turns = [await p.queue(f"c{n}", "Hello there") for n in range(20)]
        for turn in turns:
            await _age(p, turn, deadline_at=10_000)
        sweeps = Sweeps(p.engine, deadlines=p.policy.deadlines, rescues=p.policy.rescues, actor="upkeep@other")
        other = replace(p.sweeper, sweeps=sweeps, settler=replace(p.sweeper.settler, actor="upkeep@other"))

        await asyncio.gather(p.sweeper.run_once(), other.run_once(), p.sweeper.run_once(), other.run_once())

        assert {(await p.row(turn))["state"] for turn in turns} == {"bounded"}
        [letters] = await p.query("SELECT count(*) AS n FROM dead_letters")
        results = await p.query("SELECT topic, count(*) AS n FROM outbox GROUP BY topic ORDER BY topic")
        assert letters["n"] == 20
        assert results == [{"topic": TOPIC_RESULTS, "n": 20}, {"topic": TOPIC_DEAD_LETTERS, "n": 20}]


async def test_an_older_epoch_cannot_arm_append_or_seal(database_url: str, redis_url: str) -> None:
    """Redis refuses every verb of an epoch below the one it holds."""
    async with pipeline(database_url, redis_url) as p:
        turn = TurnId("00000000-0000-0000-0000-000000000001")
        info = TurnStreamInfo(turn, "c1", 0)
        old, new = Stream(turn, "acme", "c1", 1), Stream(turn, "acme", "c1", 2)
        routed = render(info, 1, Phase.ROUTED)
        assert await p.frames.arm(old, routed) is Verdict.OK
        assert await p.frames.arm(new, routed) is Verdict.OK

        late = Append(old, 2, [render(info, 2, Phase.STREAMING, "late").encode()])
        assert await p.frames.arm(old, routed) is Verdict.FENCED
        assert await p.frames.append([late]) == [Verdict.FENCED]
        assert await p.frames.rewrite(old, [routed]) is Verdict.FENCED
        assert await p.frames.seal(old) is None
        assert await p.frames.finish(old, [routed]) is Verdict.FENCED


async def test_a_gap_is_refused_and_a_repeated_append_is_free(database_url: str, redis_url: str) -> None:
    """Frame numbers are contiguous in the log: a hole is refused, a repetition adds and publishes nothing."""
    async with pipeline(database_url, redis_url) as p:
        turn = TurnId("00000000-0000-0000-0000-000000000002")
        info = TurnStreamInfo(turn, "c1", 0)
        stream = Stream(turn, "acme", "c1", 1)
        await p.frames.arm(stream, render(info, 1, Phase.ROUTED))
        lines = [render(info, n, Phase.STREAMING, f"{n} ").encode() for n in (2, 3, 4)]

        assert await p.frames.append([Append(stream, 3, lines[1:])]) == [Verdict.NOFENCE]
        assert await p.frames.append([Append(stream, 2, lines[:2])]) == [Verdict.OK]
        assert await p.frames.append([Append(stream, 2, lines)]) == [Verdict.OK]
        assert await p.frames.append([Append(stream, 2, lines)]) == [Verdict.OK]

        assert [frame.seq for frame in await p.log(turn)] == [1, 2, 3, 4]
        assert [frame.seq for frame in await p.frames.read(turn, 2)] == [3, 4]


async def test_a_renewal_beside_the_settlement_does_not_take_the_turn_for_lost(
    database_url: str, redis_url: str
) -> None:
    """Renewing a turn that its own worker has just settled keeps it; under another epoch it is lost."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.say("c1", "Hello there")
        [row] = await p.query("SELECT epoch FROM turns")
        epoch = int(str(row["epoch"]))
        claims = p.runtime.executor.claims

        assert await claims.renew([Checkpoint(turn, epoch, "", ())]) == {turn}
        assert await claims.renew([Checkpoint(turn, epoch - 1, "", ())]) == set()


async def test_a_large_batch_is_recorded_as_quickly_per_turn_as_a_small_one(database_url: str, redis_url: str) -> None:
    """Twenty batches of 200 turns in 50 conversations are recorded without a statement running into its limit."""
    async with pipeline(database_url, redis_url) as p:
        for batch in range(20):
            await p.inbox.record(
                "t", [p.inbound(f"c{n % 50}", f"message {n}", offset=200 * batch + n) for n in range(200)]
            )

        [found] = await p.query("SELECT count(*)::int AS n, max(seq) AS top FROM turns")
        assert found == {"n": 4000, "top": 80}
