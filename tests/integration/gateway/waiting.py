"""Waiting for a condition, with a deadline."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], *, within: float = 10.0) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: it did not within `within` seconds.
    """
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  (any condition, of any library)
            await asyncio.sleep(0.01)
