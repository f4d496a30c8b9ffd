"""Sending hints. The turn is already open to its lane in the ledger, so a hint may be lost."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog import get_logger

from infra.celery.envelope import envelope
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import CELERY_PREFIX

MAX_HINTS: Final = 20_000
"""Hints a lane keeps, the newest: a lane that nobody serves must not fill Redis, and turns wait seconds only."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hint:
    """A turn, and the lane that should hear of it."""

    turn_id: TurnId
    lane: Lane
    traceparent: str | None = None


class Dispatcher:
    """Pushes hints onto the lanes' queues."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def send(self, hints: Iterable[Hint]) -> bool:
        """Send all hints in one round trip. False: Redis did not take them; upkeep sends them again."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                hints = list(hints)
                for hint in hints:
                    message = envelope(hint.lane, hint.turn_id, hint.traceparent)
                    pipe.lpush(CELERY_PREFIX + hint.lane.value, message)
                for lane in {hint.lane for hint in hints}:
                    pipe.ltrim(CELERY_PREFIX + lane.value, 0, MAX_HINTS - 1)
                await pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("hints_not_sent", error=type(error).__name__)
            return False
        return True
