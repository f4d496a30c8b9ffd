"""The clocks of a model call, around any provider's stream."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from schemas.completions import ModelClocks, TimedOut

Item = TypeVar("Item")


async def keep_time(items: AsyncGenerator[Item], clocks: ModelClocks) -> AsyncGenerator[Item]:
    """Yield `items` as long as none of `clocks` runs out; close them in any case.

    An item is content: what a server drips to keep a connection open is not, and stops no clock. Only waiting for
    the model is timed, not what the consumer does between two items, except by `total`. Each wait has its own
    timeout, at 3 us, level with one that is rescheduled: a timeout belongs to a task, and a consumer may take
    each item in another one.

    Raises:
        TimedOut: naming the clock.
    """
    now = asyncio.get_running_loop().time
    started = now()
    last = started + clocks.total
    due, clock, seconds = started + clocks.first_token, "first token", clocks.first_token
    try:
        while True:
            if due >= last:
                due, clock, seconds = last, "whole answer", clocks.total
            try:
                if now() >= last:
                    raise TimeoutError
                async with asyncio.timeout_at(due):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise TimedOut(f"the model's {clock} took longer than {seconds:g} s") from None
            yield item
            due, clock, seconds = now() + clocks.between_tokens, "next token", clocks.between_tokens
    finally:
        await items.aclose()
