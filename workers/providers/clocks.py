"""The clocks of a model call, around any provider's stream."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from schemas.completions import ModelClocks, TimedOut

Item = TypeVar("Item")


async def keep_time(items: AsyncGenerator[Item], clocks: ModelClocks) -> AsyncGenerator[Item]:
    """Yield `items` as long as none of `clocks` runs out; close them in any case.

    An item is content: what a server drips to keep a connection open is not, and stops no clock. Only waiting for
    the model is timed, not what the consumer does between two items, except by `total`.

    Raises:
        TimedOut: naming the clock.
    """
    now = asyncio.get_running_loop().time
    started = now()
    last = started + clocks.total
    due, clock, seconds = started + clocks.first_token, "first token", clocks.first_token
    alarm = Alarm()
    try:
        while True:
            if due >= last:
                due, clock, seconds = last, "whole answer", clocks.total
                if now() >= last:
                    raise TimeoutError
            alarm.set(due)
            item = await anext(items)
            alarm.rest()
            yield item
            due, clock, seconds = now() + clocks.between_tokens, "next token", clocks.between_tokens
    except StopAsyncIteration:
        return
    except TimeoutError:
        raise TimedOut(f"the model's {clock} took longer than {seconds:g} s") from None
    except asyncio.CancelledError:
        if not alarm.answered():
            raise
        raise TimedOut(f"the model's {clock} took longer than {seconds:g} s") from None
    finally:
        alarm.stop()
        await items.aclose()


class Alarm:
    """Cancels the task that waits once its time has come, and never one that does something else.

    Does what `asyncio.timeout_at` does, for waits by the hundred: it keeps one timer, which on ringing early goes to
    sleep again until what is due by then. That makes a wait 0.5 us, where a timeout for each is 3; and a timeout
    over all of them would belong to one task, while a consumer may take each item in another.
    """

    __slots__ = ("_cancelling", "_due", "_loop", "_rang", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._due = 0.0
        self._rang = False
        self._cancelling = 0

    def set(self, due: float) -> None:
        """Let the current task wait until `due`, on the loop's clock."""
        self._due = due
        self._task = task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._ring)
        elif self._timer.when() > due:
            self._timer.cancel()
            self._timer = self._loop.call_at(due, self._ring)

    def rest(self) -> None:
        """Nobody waits now."""
        self._task = None

    def answered(self) -> bool:
        """Return whether the cancellation just caught was the alarm's alone; takes it back if it was the alarm's."""
        return self._rang and self._task is not None and self._task.uncancel() <= self._cancelling

    def stop(self) -> None:
        """Never ring again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._ring)
            return
        self._rang = True
        self._task.cancel()
