"""How every asyncio process of ours starts and stops."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import uvloop

from infra.settings import Settings
from infra.telemetry.logs import configure_logs
from infra.telemetry.tracing import configure_tracing

Serve = Callable[[Settings, asyncio.Event], Awaitable[None]]


def run_until_signal(name: str, settings: Settings, serve: Serve) -> None:
    """Configure logs and traces, then run `serve` until SIGTERM or Ctrl-C sets its event."""
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
