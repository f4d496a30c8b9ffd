"""Taking a step for each of many turns, several beside each other."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from structlog import get_logger

from infra.postgres.statements import LedgerUnavailable
from infra.postgres.sweeps import Abandoned

log = get_logger(__name__)

AT_A_TIME: Final = 16
"""Turns that one sweep ends beside each other: while Redis does not answer, each of them waits for it."""

T = TypeVar("T")


async def each(turns: Sequence[T], step: Callable[[T], Awaitable[None]]) -> None:
    """Take a step for each turn, several at a time. One that cannot be taken is the next sweep's, and nobody else's."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def take(turn: T) -> None:
        async with places:
            try:
                await step(turn)
            except LedgerUnavailable as error:
                log.warning("sweep_waits", error=str(error))
            except Exception:
                log.exception("sweep_step_failed", turn_id=turn.turn_id if isinstance(turn, Abandoned) else turn)

    await asyncio.gather(*map(take, turns))
