"""Announcing turns whose predecessor has settled. A hint: upkeep finds what it loses."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from schemas.ids import TurnId
from schemas.names import CHANNEL_WAKE


async def announce(redis: Redis, turn_id: TurnId) -> None:
    """Tell the orchestrators that this turn may start."""
    with suppress(RedisError, OSError):
        await redis.publish(CHANNEL_WAKE, turn_id)


async def announcements(redis: Redis) -> AsyncIterator[TurnId]:
    """Yield the turns announced from now on.

    Raises:
        RedisError: the connection broke; subscribe again.
    """
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(CHANNEL_WAKE)
        while True:
            message = cast("dict[str, str] | None", await pubsub.get_message(timeout=1.0))
            if message is not None:
                yield TurnId(message["data"])
