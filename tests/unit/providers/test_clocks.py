"""The clocks of a model call."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import pytest

from schemas.completions import ModelClocks, TimedOut
from workers.providers.clocks import keep_time

LONG = 30.0


def clocks(*, first: float = LONG, between: float = LONG, total: float = LONG) -> ModelClocks:
    return ModelClocks(connect=LONG, first_token=first, between_tokens=between, total=total)


async def _items(*waits: float, closed: Callable[[], object] = lambda: None) -> AsyncGenerator[int]:
    try:
        for number, wait in enumerate(waits):
            if wait:
                await asyncio.sleep(wait)
            yield number
    finally:
        closed()


async def test_in_time() -> None:
    """Items that come in time come unchanged, and the source is closed at the end."""
    closed = asyncio.Event()
    assert [i async for i in keep_time(_items(0, 0.01, 0, closed=closed.set), clocks())] == [0, 1, 2]
    assert closed.is_set()


@pytest.mark.parametrize(
    ("waits", "limits", "message", "before"),
    [
        ((LONG,), clocks(first=0.05), "first token took longer than 0.05 s", 0),
        ((0, 0, LONG), clocks(between=0.05), "next token took longer than 0.05 s", 2),
        ((0, *[0.02] * 1000), clocks(total=0.2), "whole answer took longer than 0.2 s", 1),
        ((LONG,), clocks(first=LONG, total=0.05), "whole answer took longer than 0.05 s", 0),
        ((0, LONG), clocks(first=LONG, between=0.05), "next token took longer than 0.05 s", 1),
    ],
    ids=["first", "between", "total", "total-before-first", "between-shorter-than-first"],
)
async def test_each_clock(waits: tuple[float, ...], limits: ModelClocks, message: str, before: int) -> None:
    """A clock that runs out ends the call under its own name, after the items before it, and closes the source."""
    closed = asyncio.Event()
    got: list[int] = []
    with pytest.raises(TimedOut, match=message):
        await _listen(keep_time(_items(*waits, closed=closed.set), limits), got)
    assert len(got) >= before
    assert got == list(range(len(got)))
    assert closed.is_set()


async def test_a_slow_consumer_is_not_the_model() -> None:
    """What a consumer does between two items is on nobody's clock and is never interrupted."""
    got: list[int] = []
    async for item in keep_time(_items(0, 0, 0), clocks(first=0.02, between=0.02)):
        await asyncio.sleep(0.06)
        got.append(item)
    assert got == [0, 1, 2]


async def test_total_counts_the_consumer_too() -> None:
    """The whole answer's clock is the wall's: it stops a stream that its consumer slows down, even one always ready."""
    with pytest.raises(TimedOut, match="whole answer"):
        await _listen(keep_time(_items(*[0.0] * 1000), clocks(total=0.1)), [], pause=0.03)


async def test_every_item_in_another_task() -> None:
    """A clock also works for a consumer that takes each item in a task of its own."""
    items = keep_time(_items(0, 0, LONG), clocks(first=LONG, between=0.05))
    assert [await asyncio.create_task(_next(items)) for _ in range(2)] == [0, 1]
    with pytest.raises(TimedOut, match="next token"):
        await asyncio.create_task(_next(items))


async def test_cancelling_is_no_timeout() -> None:
    """A consumer that is cancelled sees its cancellation, and the source is closed."""
    closed = asyncio.Event()
    items = keep_time(_items(LONG, closed=closed.set), clocks())
    task = asyncio.create_task(_next(items))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


@pytest.mark.parametrize("after", [0.04, 0.06], ids=["before the clock", "after the clock"])
async def test_cancelling_wins_over_a_clock(after: float) -> None:
    """When a clock runs out and the consumer is cancelled in the same moment, the consumer is cancelled."""
    task = asyncio.create_task(_next(keep_time(_items(LONG), clocks(first=0.05))))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    loop.call_at(loop.time() + after, task.cancel)
    time.sleep(0.1)  # noqa: ASYNC251 - so that both are due in one turn of the loop
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_leaves_no_cancellation_behind() -> None:
    """After a clock ran out the consumer's task is as uncancelled as before, so that its fallback can run."""
    with pytest.raises(TimedOut):
        await _next(keep_time(_items(LONG), clocks(first=0.02)))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_leaving_early_closes_the_source() -> None:
    """A consumer that stops listening closes the source, without an explicit word."""
    closed = asyncio.Event()
    async for _ in keep_time(_items(0, LONG, closed=closed.set), clocks()):
        break
    async with asyncio.timeout(2):
        await closed.wait()


async def _listen(items: AsyncGenerator[int], got: list[int], *, pause: float = 0) -> None:
    async for item in items:
        got.append(item)
        if pause:
            await asyncio.sleep(pause)


async def _next(items: AsyncGenerator[int]) -> int:
    return await anext(items)
