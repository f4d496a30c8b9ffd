"""Announcing turns whose predecessor has settled. A hint: upkeep finds what it loses."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Final, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import RedisError

from schemas.ids import TurnId
from schemas.names import CHANNEL_WAKE

QUIET_SECONDS: Final = 5.0
"""Silence after which the server is pinged; the same again means that it is gone. Below the health check's time."""


async def announce(redis: Redis, turn_id: TurnId) -> None:
    """Tell the orchestrators that this turn may start."""
    with suppress(RedisError, OSError):
        await redis.publish(CHANNEL_WAKE, turn_id)


async def announce_all(redis: Redis, turn_ids: Sequence[TurnId]) -> None:
    """Tell the orchestrators that these turns may start, in one round trip."""
    with suppress(RedisError, OSError):
        async with redis.pipeline(transaction=False) as together:
            for turn_id in turn_ids:
                together.publish(CHANNEL_WAKE, turn_id)
            await together.execute()


async def announcements(redis: Redis) -> AsyncGenerator[TurnId]:
    """Yield the turns announced from now on.

    Raises:
        RedisError: the connection broke; subscribe again.
    """
    # What is not ignored here is seen below as a sign of life: a pong, a confirmed subscription.
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(CHANNEL_WAKE)
        pinged = False
        while True:
            message = cast("dict[str, str] | None", await pubsub.get_message(timeout=QUIET_SECONDS))
            if message is None and pinged:
                raise RedisGone("Redis answered no ping on the wake channel")
            pinged = message is None
            if message is None:
                await pubsub.ping()
            elif message["type"] == "message":
                yield TurnId(message["data"])
