"""How late the event loop runs: one slow call without an `await` delays every turn of the process."""

import asyncio
from typing import Final

import structlog

from infra.telemetry.metrics import EVENT_LOOP_LAG

BEAT_SECONDS: Final = 0.25
LATE_SECONDS: Final = 0.5

_log = structlog.stdlib.get_logger(__name__)


async def watch_loop_lag(*, beat: float = BEAT_SECONDS) -> None:
    """Measure until cancelled. Start it as a named task beside the process's work."""
    while True:
        await measure_lag(beat)


async def measure_lag(beat: float) -> float:
    """Sleep for `beat` seconds, record by how many more the loop let us wait, and return them."""
    loop = asyncio.get_running_loop()
    due = loop.time() + beat
    await asyncio.sleep(beat)

    lag = max(0.0, loop.time() - due)
    EVENT_LOOP_LAG.observe(lag)
    if lag >= LATE_SECONDS:
        _log.warning("event loop was held up; look for a blocking call or too little CPU", lag_seconds=round(lag, 3))
    return lag
