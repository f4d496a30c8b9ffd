"""Messages that come twice, in the wrong order, from the first again, or to a group that changes."""

import asyncio
import random
import sys
import time
import uuid
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from cli.endpoints import EndpointsFile
from infra.celery.dispatch import Dispatcher, Hint
from infra.embedded.topics import PARTITIONS
from infra.kafka.consumer import Batch, Record
from infra.redis.client import create_redis
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import GROUP_ORCHESTRATOR, TOPIC_TURNS

_PATIENCE: Final = 15.0
_PARTITIONS: Final = [TopicPartition(TOPIC_TURNS, number) for number in range(PARTITIONS[TOPIC_TURNS])]
_READ: Final = 400
"""Records that are read at most to choose from."""


async def resend(kafka: str, chance: random.Random, *, most: int = 40) -> int:
    """Produce records of the topic of turns again, byte for byte, in another order; returns how many.

    Raises:
        KafkaError: the broker does not answer.
    """
    records = await _some_records(kafka)
    chosen = chance.sample(records, min(most, len(records)))
    producer = AIOKafkaProducer(bootstrap_servers=kafka, request_timeout_ms=5_000)
    await producer.start()
    try:
        for record in chosen:
            await producer.send_and_wait(TOPIC_TURNS, record.value, record.key, headers=list(record.headers))
    finally:
        await producer.stop()
    return len(chosen)


async def _some_records(kafka: str) -> list[Record]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, auto_offset_reset="earliest", request_timeout_ms=5_000, fetch_max_wait_ms=10
    )
    await consumer.start()
    try:
        consumer.assign(_PARTITIONS)
        await consumer.seek_to_beginning()
        records: list[Record] = []
        for _ in range(20):
            batch = cast("Batch", await consumer.getmany(timeout_ms=200, max_records=_READ))
            records.extend(record for some in batch.values() for record in some)
            if len(records) >= _READ or (records and not batch):
                break
        return records
    finally:
        await consumer.stop()


async def rewind(kafka: str) -> bool:
    """Let the orchestrator's group begin at the first record again. Nobody may be in it; False: somebody was.

    Raises:
        KafkaError: the broker does not answer.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, group_id=GROUP_ORCHESTRATOR, enable_auto_commit=False, request_timeout_ms=5_000
    )
    await consumer.start()
    try:
        consumer.assign(_PARTITIONS)
        give_up = time.monotonic() + _PATIENCE
        while time.monotonic() < give_up:
            with suppress(KafkaError):
                await consumer.commit(dict.fromkeys(_PARTITIONS, 0))
                return True
            await asyncio.sleep(0.5)
        return False
    finally:
        await consumer.stop()


async def rehint(redis: str, turns: Sequence[str], chance: random.Random, *, most: int = 40) -> int:
    """Push hints for turns old and new into any lane, also the wrong one, and one for a turn that never was."""
    client = create_redis(redis, connections=1)
    try:
        chosen = [
            *chance.sample(turns, min(most, len(turns))),
            *turns[-most:],
            str(uuid.UUID(int=chance.getrandbits(128))),
        ]
        hints = [Hint(TurnId(turn), lane) for turn in chosen for lane in chance.sample(list(Lane), 2)]
        await Dispatcher(client).send(hints)
        return len(hints)
    finally:
        await client.aclose()


async def second_orchestrator(found: EndpointsFile, environ: dict[str, str]) -> Process:
    """Start another orchestrator beside the system's own; whoever starts it ends it."""
    assert found.simulators is not None
    more = {
        "FAIRLEAD_KAFKA": found.kafka,
        "FAIRLEAD_REDIS": found.redis,
        "FAIRLEAD_DATABASE": found.database,
        "FAIRLEAD_DISCOVERY_BASE_URL": found.simulators.tgi,
        "FAIRLEAD_FRONTIER_BASE_URL": found.simulators.openai,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "cli.main",
        "serve",
        "orchestrator",
        env={**environ, **more},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
