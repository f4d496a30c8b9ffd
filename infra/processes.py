"""How every asyncio process of ours starts and stops."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

import uvloop

from infra.crash_points import arm
from infra.settings import Settings
from infra.telemetry.logs import configure_logs
from infra.telemetry.tracing import configure_tracing

Serve = Callable[[Settings, asyncio.Event], Awaitable[None]]


def run_until_signal(name: str, settings: Settings, serve: Serve) -> None:
    """Configure logs and traces, then run `serve` until SIGTERM or Ctrl-C sets its event."""
    arm()
    configure_logs(name, settings)
    stop_tracing = configure_tracing(name, settings)

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(settings, stop)

    try:
        uvloop.run(main())
    finally:
        stop_tracing()


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until all have ended. On Python 3.11 `asyncio.wait_for`, which redis-py uses, may swallow one."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)


async def beat_until(stop: asyncio.Event, beats: Mapping[str, Coroutine[None, None, None]]) -> None:
    """Run endless loops until `stop` is set. A loop that ends by itself ends the process, with its error.

    Raises:
        Exception: whatever ended a loop; a supervisor starts the process again.
    """
    tasks = [asyncio.create_task(beat, name=name) for name, beat in beats.items()]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    await end([*tasks, stopping])
    for task in done:
        task.result()
