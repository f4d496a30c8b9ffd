"""What an orchestrator does when a server it needs stops answering without closing anything."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from infra.embedded.memory_kafka import MemoryKafka
from infra.embedded.redis import RedisServer
from infra.kafka.consumer import EventConsumer
from infra.redis import wake
from infra.redis.client import create_redis
from infra.redis.wake import announce, announcements
from schemas.ids import TurnId
from tests.support.pipeline import until

TURN = TurnId("00000000-0000-0000-0000-000000000001")


async def test_a_consumer_leaves_in_seconds_though_kafka_is_frozen(state_directory: Path) -> None:
    """A process that is told to end does not wait for the answer of a broker that gives none."""
    server = MemoryKafka(state=state_directory)
    await asyncio.to_thread(server.start)
    try:
        consumer = EventConsumer(bootstrap=server.address, topic="t", group="g", client_id="test", fetch_max_wait_ms=10)
        await consumer.start()
        await consumer.fetch(wait_ms=10, limit=1)
        server.pause()
        async with asyncio.timeout(20):
            await consumer.stop()
    finally:
        server.resume()
        await asyncio.to_thread(server.stop)


async def test_a_wake_channel_that_fell_silent_is_left(redis_server: RedisServer, redis_url: str) -> None:
    """A connection that carries nothing any more, not even the answer to a ping, ends with an error."""
    redis, heard = create_redis(redis_url), list[TurnId]()

    async def listen() -> None:
        async with aclosing(announcements(redis)) as announced:
            async for turn_id in announced:
                heard.append(turn_id)

    async def hears() -> bool:
        await announce(redis, TURN)
        return TURN in heard

    listening = asyncio.create_task(listen())
    await until(hears)
    redis_server.pause()
    try:
        async with asyncio.timeout(30):
            with pytest.raises(RedisError):
                await listening
    finally:
        redis_server.resume()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await redis.aclose()


async def test_a_quiet_wake_channel_is_kept(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel on which nothing is announced for long is no broken one: it answers pings."""
    monkeypatch.setattr(wake, "QUIET_SECONDS", 0.3)
    redis, heard = create_redis(redis_url), list[TurnId]()

    async def listen() -> None:
        async with aclosing(announcements(redis)) as announced:
            async for turn_id in announced:
                heard.append(turn_id)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(2)
    await announce(redis, TURN)
    await until(lambda: TURN in heard)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await redis.aclose()
