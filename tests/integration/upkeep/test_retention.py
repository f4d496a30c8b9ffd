"""What ended long ago is forgotten, whole, and nothing else is."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, cast

from redis.asyncio import Redis

from infra.postgres.retention import BATCH, Retention
from infra.redis.client import create_redis
from infra.redis.frame_log import Append, FrameLog, Stream
from schemas.frames import Phase, TurnStreamInfo, render
from schemas.ids import TurnId
from schemas.names import TOPIC_TURNS, log_key
from schemas.policy import RetentionDays
from tests.support.pipeline import TENANT, Pipeline, pipeline
from workers.upkeep.forgetter import Forgetter

DAYS: Final = RetentionDays(kafka=7, outbox=2, conversations=10, keys=20, dead_letters=15)

_KEYS_OF_TURNS: Final = (
    "INSERT INTO idempotency (tenant_id, key, body_sha256, conversation_id, turn_id)"
    " SELECT tenant_id, turn_id, '', conversation_id, turn_id FROM turns"
)
_EVERY_CLOCK: Final = (
    "UPDATE turns SET created_at = created_at - make_interval(days => :d),"
    " done_at = done_at - make_interval(days => :d)",
    "UPDATE conversations SET created_at = created_at - make_interval(days => :d)",
    "UPDATE idempotency SET created_at = created_at - make_interval(days => :d)",
    "UPDATE outbox SET published_at = published_at - make_interval(days => :d)",
    "UPDATE dead_letters SET created_at = created_at - make_interval(days => :d),"
    " updated_at = updated_at - make_interval(days => :d)",
    "UPDATE replay_jobs SET ended_at = ended_at - make_interval(days => :d)",
)


def _forgetter(p: Pipeline, *, seconds: float = 60) -> Forgetter:
    return Forgetter(Retention(p.engine, days=DAYS), seconds=seconds)


async def _pass(p: Pipeline, days: int) -> None:
    """Let so many days pass for everything that is there."""
    for statement in _EVERY_CLOCK:
        await p.query(statement, d=days)


async def _left(p: Pipeline, table: str, column: str) -> set[str]:
    return {str(row["found"]) for row in await p.query(f"SELECT {column}::text AS found FROM {table}")}


async def test_an_ended_conversation_goes_whole_and_nothing_else_does(database_url: str, redis_url: str) -> None:
    """Of four old conversations the ended one goes with all that is its; open, owed and lately used ones stay whole."""
    async with pipeline(database_url, redis_url) as p:
        for name in ("ended", "open", "owed", "used"):
            await p.say(name, "Hello there")
        await p.query(
            "INSERT INTO dead_letters (turn_id, tenant_id, conversation_id, reason, stage)"
            " SELECT turn_id, tenant_id, conversation_id, 'worker_lost', 'running' FROM turns"
            " WHERE conversation_id = 'owed'"
        )
        await p.record("open", "Hello again")
        await p.query(_KEYS_OF_TURNS)
        await _pass(p, 11)
        await p.say("used", "Hello again")

        assert await _forgetter(p).run_once() == 1
        assert await _forgetter(p).run_once() == 0

        assert await _left(p, "conversations", "conversation_id") == {"open", "owed", "used"}
        assert len(await _left(p, "turns", "turn_id")) == 5
        assert len(await _left(p, "idempotency", "key")) == 4
        for table in ("attempts", "turn_events"):
            assert await _left(p, table, "turn_id") <= await _left(p, "turns", "turn_id")


async def test_each_kind_goes_by_its_own_age(database_url: str, redis_url: str) -> None:
    """Published results, keys without a turn, settled dead letters and ended jobs go; what is open and audit stay."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.record("c1", "Hello there")
        await p.query(
            "INSERT INTO outbox (topic, headers, value, published_at)"
            " SELECT 't', '[]', 'v', CASE WHEN n < 3 THEN now() END FROM generate_series(0, 4) n"
        )
        await p.query(_KEYS_OF_TURNS)
        await p.query(
            "INSERT INTO idempotency (tenant_id, key, body_sha256, conversation_id, turn_id)"
            " VALUES (:t, 'never-recorded', '', 'c1', gen_random_uuid())",
            t=TENANT,
        )
        await p.query(
            "INSERT INTO dead_letters (reason, stage, state, turn_id)"
            " VALUES ('undecodable', 'decode', 'unanswered', NULL), ('undecodable', 'decode', 'discarded', NULL),"
            " ('worker_lost', 'running', 'replayed', CAST(:t AS uuid))",
            t=turn,
        )
        await p.query("INSERT INTO dead_records (dead_letter_id, value) SELECT dead_letter_id, 'v' FROM dead_letters")
        await p.query(
            "INSERT INTO replay_jobs (tenant_id, filter, mode, rate, most, stop_percent, state, created_by, ended_at)"
            " VALUES (:t, 'x', 'shadow', 1, 1, 1, 'finished', 'me', now()),"
            " (:t, 'x', 'shadow', 1, 1, 1, 'running', 'me', NULL)",
            t=TENANT,
        )
        await p.query(
            "INSERT INTO replay_items (job_id, position, dead_letter_id)"
            " SELECT job_id, 1, gen_random_uuid() FROM replay_jobs"
        )
        await p.query("INSERT INTO operator_audit (operator, verb, subject, at) VALUES ('me', 'v', 's', '2020-01-01')")

        await _pass(p, 1)
        assert await _forgetter(p).run_once() == 0
        await _pass(p, 2)
        assert await _forgetter(p).run_once() == 3
        await _pass(p, 13)
        assert await _forgetter(p).run_once() == 3
        await _pass(p, 6)
        assert await _forgetter(p).run_once() == 1

        assert await _left(p, "outbox", "published_at") == {"None"}
        assert await _left(p, "idempotency", "key") == {turn}
        assert await _left(p, "dead_letters", "state") == {"unanswered"}
        assert await _left(p, "dead_records", "dead_letter_id") == await _left(p, "dead_letters", "dead_letter_id")
        assert await _left(p, "turn_records", "turn_id") == set()
        assert await _left(p, "replay_jobs", "state") == {"running"}
        assert await _left(p, "replay_items", "job_id") == await _left(p, "replay_jobs", "job_id")
        assert await _left(p, "operator_audit", "operator") == {"me"}


async def test_two_upkeeps_at_once_forget_everything_once(database_url: str, redis_url: str) -> None:
    """Batches of two processes do not meet: after one pass of both nothing old is left, and each row counts once."""
    async with pipeline(database_url, redis_url) as p:
        many = 3 * BATCH + 7
        await p.query(
            "INSERT INTO conversations (tenant_id, conversation_id, last_seq)"
            " SELECT 'acme', 'c' || n, 1 FROM generate_series(1, :n) n",
            n=many,
        )
        await p.query(
            "INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, body_sha256,"
            " kafka_topic, kafka_partition, kafka_offset, state, deadline_at, done_at)"
            " SELECT gen_random_uuid(), 'acme', 'c' || n, 1, 'test', 'asked', '', 't', 0, n, 'answered', now(), now()"
            " FROM generate_series(1, :n) n",
            n=many,
        )
        await p.query(_KEYS_OF_TURNS)
        await p.query(
            "INSERT INTO outbox (topic, headers, value, turn_id, published_at)"
            " SELECT 't', '[]', 'v', turn_id, now() FROM turns"
        )
        await _pass(p, 30)

        both = await asyncio.gather(_forgetter(p).run_once(), _forgetter(p).run_once())
        rest = await _forgetter(p).run_once()

        assert sum(both) + rest == 2 * many
        for table, column in (("turns", "turn_id"), ("idempotency", "key"), ("outbox", "outbox_id")):
            assert await _left(p, table, column) == set()


async def test_a_message_that_comes_while_its_conversation_is_forgotten_is_kept(
    database_url: str, redis_url: str
) -> None:
    """Fifty old conversations are written to while they are forgotten: every new turn is in the ledger afterwards."""
    async with pipeline(database_url, redis_url) as p:
        for n in range(50):
            await p.record(f"c{n}", "Hello there")
        await p.query("UPDATE turns SET state = 'answered', done_at = now()")
        await _pass(p, 30)

        writing = asyncio.gather(*(p.record(f"c{n}", "Hello again") for n in range(50)))
        await asyncio.gather(*(_forgetter(p).run_once() for _ in range(3)))
        new = await writing

        assert set(new) <= await _left(p, "turns", "turn_id")


async def test_a_topic_that_is_read_again_answers_nothing_again(database_url: str, redis_url: str) -> None:
    """As long as Kafka may still have a record its turn is known, so that reading it again starts nothing."""
    async with pipeline(database_url, redis_url) as p:
        item = p.inbound("c1", "Hello there", key="k1", offset=1)
        turn = TurnId(item.event.turn_id)
        await p.inbox.record(TOPIC_TURNS, [item])
        await p.preparation.run(turn)
        await p.answer(turn)
        await _pass(p, int(DAYS.kafka))
        await _forgetter(p).run_once()

        [again] = await p.inbox.record(TOPIC_TURNS, [item])
        await p.preparation.run(turn)
        await p.answer(turn)

        assert (again.inserted, again.conflict) == (False, False)
        assert p.calls(turn) == (1, 0)


async def test_a_pass_ends_with_its_time_and_the_next_goes_on(database_url: str, redis_url: str) -> None:
    """Without time a pass takes one batch of each kind; further passes walk past what stays and find the rest."""
    async with pipeline(database_url, redis_url) as p:
        await p.query(
            "INSERT INTO conversations (tenant_id, conversation_id, last_seq)"
            " SELECT 'acme', 'c' || n, 0 FROM generate_series(1, :n) n",
            n=2 * BATCH,
        )
        first = await p.record("kept", "Hello there")
        await _pass(p, 30)
        await p.query(
            "UPDATE conversations SET created_at = created_at - interval '1 day' WHERE conversation_id = 'kept'"
        )
        hasty = _forgetter(p, seconds=-1)

        gone = [await hasty.run_once() for _ in range(4)]

        assert gone == [BATCH - 1, BATCH, 1, 0]
        assert await _left(p, "turns", "turn_id") == {first}


async def _keys(redis: Redis) -> list[str]:
    """Return the keys of all turns."""
    return cast("list[str]", await redis.keys("fl:t:*"))


def _steps(redis: Redis, frames: FrameLog, turn: TurnId) -> list[Callable[[], Awaitable[object]]]:
    """Return every verb of the script, and the loss of one key of two, as calls."""
    info = TurnStreamInfo(turn, "c1", 0)
    old, new = Stream(turn, "acme", "c1", 1), Stream(turn, "acme", "c1", 2)
    all_frames = [
        render(info, 1, Phase.ROUTED),
        render(info, 2, Phase.STREAMING, "one "),
        render(info, 3, Phase.STREAMING, "two "),
    ]
    return [
        partial(frames.arm, old, all_frames[0]),
        partial(frames.append, [Append(old, 2, [all_frames[1].encode()])]),
        partial(redis.delete, log_key(turn)),
        partial(frames.append, [Append(old, 3, [all_frames[2].encode()], finished=True)]),
        partial(frames.rewrite, old, all_frames),
        partial(frames.seal, new),
        partial(frames.finish, new, all_frames),
    ]


async def test_every_key_of_a_turn_in_redis_has_a_time_to_live(redis_url: str) -> None:
    """After every verb, from any of them on, also when Redis lost one key of two, no key is left without an end."""
    redis = create_redis(redis_url)
    frames = FrameLog(redis)
    for n in range(12):
        steps = _steps(redis, frames, TurnId(f"00000000-0000-0000-0000-{n:012d}"))
        for step in (*steps[n % 7 :], *steps[: n % 7]):
            await step()
            assert [key for key in await _keys(redis) if await redis.ttl(key) < 0] == [], (n, step)
    assert len(await _keys(redis)) >= 12
    await redis.aclose()
