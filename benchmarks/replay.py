"""How fast dead letters go back to where they are answered, beside the plainest program that sends records again.

Ours is a replay job in mode `deliver`, from running to every one of its turns recorded in the ledger: each is decided
upon, booked and audited. The peer is aiokafka alone: it reads as many records of 1 KB, key and headers included, and
produces them to another topic, sends pipelined and confirmed by all replicas. `python -m benchmarks.replay
[--broker apache]` prints one JSON line.
"""

import argparse
import asyncio
import os
import time
import uuid
from itertools import chain
from typing import Any, Final

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.harness import FETCH_MS, Round, administer, in_turn, medians, ratio, servers, show, told
from benchmarks.ledger import TENANT, open_ledger
from infra.embedded.servers import Broker, Endpoints
from infra.policy import load_policy
from infra.postgres.engine import create_engine
from infra.postgres.letter_views import Owner
from infra.postgres.replay_runs import ReplayRuns
from infra.postgres.replays import ReplayRequest, create
from infra.postgres.statements import rows
from infra.redis.client import create_redis
from workers.dead_letters.replays import Replays

LETTERS: Final = 4_000
ROUNDS: Final = 5
BYTES: Final = 1_024
PARTITIONS: Final = 4
FETCHED: Final = 500
RATIO: Final = "ours / raw aiokafka"

_HEADERS: Final = [("ce_type", b"ai.fairlead.turn.submitted"), ("ce_id", b"0" * 36), ("dlq-reason", b"queue_deadline")]
_WHERE: Final = "reason=queue_deadline and state=unanswered"

_BURY: Final = text("""
WITH spoken AS (
    INSERT INTO conversations (tenant_id, conversation_id, last_seq)
    SELECT :tenant, gen_random_uuid()::text, 1 FROM generate_series(1, CAST(:letters AS int))
    RETURNING conversation_id
), ended AS (
    INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, body_sha256, kafka_topic,
                       kafka_partition, kafka_offset, state, agent, closing, deadline_at, done_at)
    SELECT gen_random_uuid(), :tenant, conversation_id, 1, 'bench', repeat('x', :bytes), repeat('0', 64),
           'fairlead.turns', 0, 0, 'bounded', 'discovery', '<p>sorry</p>', now(), now()
    FROM spoken RETURNING turn_id, conversation_id
)
INSERT INTO dead_letters (turn_id, tenant_id, conversation_id, reason, stage, agent)
SELECT turn_id, :tenant, conversation_id, 'queue_deadline', 'queued', 'discovery' FROM ended
""")
_REPLAYED = text("SELECT count(*)::int AS n FROM turns WHERE replay_of IS NOT NULL AND state = 'received'")
_CLEAR = text("TRUNCATE dead_letters, replay_jobs, turns, conversations CASCADE")


def run(
    *, letters: int = LETTERS, rounds: int = ROUNDS, broker: Broker = "memory", given: Endpoints | None = None
) -> dict[str, object]:
    """Measure; rates are dead letters, or records, a second."""

    def measure() -> dict[str, object]:
        with servers(given, broker=broker) as places:
            return uvloop.run(_measure(places, broker, letters, rounds))

    return told("replay", measure)


def main() -> None:
    """Print the figures as one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", choices=("memory", "apache"), default="memory")
    show(run(broker=parser.parse_args().broker))


async def _measure(places: Endpoints, broker: Broker, letters: int, rounds: int) -> dict[str, object]:
    async with open_ledger(places.database):
        ways = {"raw": lambda: _raw(places.kafka, broker, letters), "ours": lambda: _ours(places, letters)}
        samples = await in_turn(ways, rounds=rounds)
    found = medians(samples)
    return {
        "broker": broker,
        "letters": letters,
        "medians": found,
        "summary": {
            "ours, dead letters/s": found["ours"]["per_s"],
            "raw aiokafka, records/s": found["raw"]["per_s"],
            RATIO: ratio(samples, "ours", "raw", "per_s"),
        },
        "targets": {RATIO: ">= 0.7"},
    }


async def _ours(places: Endpoints, letters: int) -> Round:
    """Replay fresh dead letters: every replay is recorded, none is answered."""
    engine = create_engine(places.database, pool_size=4, name="fairlead-bench")
    redis = create_redis(places.redis)
    policy = load_policy()
    try:
        await rows(engine, _CLEAR, {})
        await rows(engine, _BURY, {"tenant": TENANT, "letters": letters, "bytes": BYTES})
        # Letters are older than a minute when somebody replays them: autovacuum has seen them.
        await administer(places.database, "VACUUM (ANALYZE)")
        wanted = ReplayRequest(where=_WHERE, mode="deliver", rate=1e6, most=letters, stop_percent=50, late=False)
        await create(engine, Owner(TENANT, installation=False), wanted, operator="bench")
        runs = ReplayRuns(
            engine, owner="bench", lease=policy.deadlines.lease, waiting=policy.deadlines.waiting, history=10
        )
        replays = Replays(runs=runs, redis=redis, in_flight=letters)
        started, cpu = time.perf_counter(), time.process_time()
        await _until_recorded(engine, replays, letters)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
    finally:
        await redis.aclose()
        await engine.dispose()
    return {"per_s": letters / took, "cpu_us": cpu / letters * 1e6}


async def _until_recorded(engine: AsyncEngine, replays: Replays, letters: int) -> None:
    moved = 0
    while moved < letters:
        now = await replays.run_once()
        moved += now
        if not now:
            await asyncio.sleep(0.005)
    [found] = await rows(engine, _REPLAYED, {})
    if found["n"] != letters:
        raise RuntimeError(f"{found['n']} of {letters} replays are in the ledger; look at what the job skipped.")


async def _raw(bootstrap: str, broker: Broker, records: int) -> Round:
    """Read records and produce them to another topic."""
    source, target = f"bench.letters.{uuid.uuid4().hex}", f"bench.again.{uuid.uuid4().hex}"
    if broker == "apache":
        from infra.embedded.apache_kafka import create_topics

        await asyncio.to_thread(create_topics, bootstrap, {source: PARTITIONS, target: PARTITIONS})
    wait_ms = FETCH_MS if broker == "memory" else 500
    producer: Any = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=wait_ms, enable_auto_commit=False)
    await producer.start()
    await consumer.start()
    try:
        await producer.send_and_wait(target, b"first")
        for number in range(records):
            await producer.send(source, os.urandom(BYTES // 2).hex().encode(), str(number).encode(), headers=_HEADERS)
        await producer.flush()
        partitions = [TopicPartition(source, n) for n in await producer.partitions_for(source)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        started, cpu = time.perf_counter(), time.process_time()
        await _send_again(consumer, producer, target, records)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
    finally:
        await consumer.stop()
        await producer.stop()
    return {"per_s": records / took, "cpu_us": cpu / records * 1e6}


async def _send_again(consumer: Any, producer: Any, target: str, records: int) -> None:
    sent: list[asyncio.Future[object]] = []
    while len(sent) < records:
        fetched = await consumer.getmany(timeout_ms=1_000, max_records=FETCHED)
        for record in chain.from_iterable(fetched.values()):
            confirmed = await producer.send(target, record.value, record.key, headers=list(record.headers))
            sent.append(confirmed)
    await producer.flush()
    # A send that was refused raises here.
    await asyncio.gather(*sent)


if __name__ == "__main__":
    main()
