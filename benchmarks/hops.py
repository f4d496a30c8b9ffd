"""The raw hops of a turn, each alone on the same servers: what no system made of them can go below."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from celery import Celery
from redis.asyncio import Redis
from sqlalchemy import text

from benchmarks.harness import FETCH_MS, Pipe, child, percentile
from benchmarks.models import HEADERS, bare_request
from infra.embedded.servers import Broker, Endpoints
from infra.postgres.engine import create_engine
from infra.postgres.statements import rows
from simulators.process import Dialect

TOPIC: Final = "fairlead.bench.hop"
QUEUE: Final = "bench.hop"
EVERY: Final = 0.02

Once = Callable[[], Awaitable[float]]
"""Makes one hop and returns the seconds it took."""


async def median_ms(once: Once, count: int) -> float:
    """Make paced hops; a few before them do not count."""
    taken: list[float] = []
    for number in range(count + 5):
        took = await once()
        if number >= 5:
            taken.append(took * 1e3)
        await asyncio.sleep(EVERY)
    return round(percentile(taken, 0.5), 3)


@asynccontextmanager
async def kafka_hop(bootstrap: str, broker: Broker) -> AsyncGenerator[Once]:
    """From sending a record, confirmed by all replicas, to receiving it."""
    if broker == "apache":
        from infra.embedded.apache_kafka import create_topics

        await asyncio.to_thread(create_topics, bootstrap, {TOPIC: 1})
    wait_ms = FETCH_MS if broker == "memory" else 500
    producer: Any = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="latest", fetch_max_wait_ms=wait_ms)
    await producer.start()
    await consumer.start()
    try:
        await producer.send_and_wait(TOPIC, b"first", partition=0)
        partition = TopicPartition(TOPIC, 0)
        consumer.assign([partition])
        await consumer.seek_to_end(partition)

        async def once() -> float:
            started = time.perf_counter()
            received = asyncio.ensure_future(consumer.getone())
            await producer.send_and_wait(TOPIC, b"x" * 1024, partition=0)
            await received
            return time.perf_counter() - started

        yield once
    finally:
        await consumer.stop()
        await producer.stop()


@asynccontextmanager
async def celery_hop(redis: str) -> AsyncGenerator[Once]:
    """From `apply_async` with a held producer to the start of the task in a stock worker with the solo pool."""
    app, task = _stock(redis, lambda: None)
    async with child(_stock_worker, redis) as worker:
        with app.producer_pool.acquire(block=True) as producer:

            async def once() -> float:
                started = time.perf_counter()
                task.apply_async(producer=producer, queue=QUEUE)
                return await worker.answer() - started

            yield once
    app.close()


def _stock(redis: str, work: Callable[[], None]) -> tuple[Celery, Any]:
    app = Celery("hop", broker=redis, set_as_current=False)
    app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)

    @app.task(name="hop")
    def hop() -> None:
        work()

    return app, hop


def _stock_worker(connection: Pipe, redis: str) -> None:
    # The clock of perf_counter is the machine's: two processes may compare their readings.
    # Celery's banner goes to the file descriptor, whatever `sys.stdout` is.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    app, _ = _stock(redis, lambda: connection.send(time.perf_counter()))
    app.Worker(pool_cls="solo", queues=[QUEUE], without_mingle=True, without_gossip=True, loglevel="ERROR").start()


@asynccontextmanager
async def publish_hop(url: str) -> AsyncGenerator[Once]:
    """From PUBLISH to its arrival at a subscriber."""
    async with Redis.from_url(url) as redis, redis.pubsub() as pubsub:
        ear: Any = pubsub
        await ear.subscribe("bench.hop")
        await ear.get_message(timeout=2)

        async def once() -> float:
            started = time.perf_counter()
            hearing = asyncio.ensure_future(ear.get_message(ignore_subscribe_messages=True, timeout=5))
            await redis.publish("bench.hop", b"x" * 64)
            await hearing
            return time.perf_counter() - started

        yield once


@asynccontextmanager
async def model_hop(dialect: Dialect, url: str) -> AsyncGenerator[Once]:
    """From sending a model its request to the first bytes of its answer."""
    request = bare_request(dialect, url)
    async with aiohttp.ClientSession() as session:

        async def once() -> float:
            started = time.perf_counter()
            async with session.post(request.url, data=request.body, headers=HEADERS) as response:
                await response.content.readany()
                took = time.perf_counter() - started
                await response.read()
            return took

        yield once


@asynccontextmanager
async def commit_hop(places: Endpoints) -> AsyncGenerator[Once]:
    """One statement that writes a row and commits, as a transition of a turn does."""
    engine = create_engine(places.database, pool_size=1, name="fairlead-bench")
    statement = text(
        "INSERT INTO tenants (tenant_id, name) VALUES ('hop', :n) ON CONFLICT (tenant_id) DO UPDATE SET name = :n"
    )

    async def once() -> float:
        started = time.perf_counter()
        await rows(engine, statement, {"n": str(started)})
        return time.perf_counter() - started

    try:
        yield once
    finally:
        await engine.dispose()
