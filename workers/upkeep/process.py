"""The upkeep process: the only place that knows all its parts."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from structlog import get_logger

from infra.celery.dispatch import Dispatcher
from infra.kafka.producer import EventProducer
from infra.policy import load_policy
from infra.postgres.dead_letters import DeadLetters
from infra.postgres.engine import create_engine
from infra.postgres.outbox import Outbox
from infra.postgres.retention import Retention
from infra.postgres.statements import LedgerUnavailable
from infra.postgres.sweeps import Sweeps
from infra.processes import beat_until, run_until_signal
from infra.redis.client import create_redis
from infra.redis.frame_log import FrameLog
from infra.settings import Settings
from infra.telemetry import metrics
from infra.telemetry.loop_lag import watch_loop_lag
from infra.telemetry.metrics import serve_metrics
from workers.answers.abandoned import AbandonedSettler
from workers.upkeep.forgetter import Forgetter
from workers.upkeep.relay import Relay
from workers.upkeep.sweep import Sweeper

log = get_logger(__name__)

RELAY_SECONDS: Final = 0.1
RETENTION_SECONDS: Final = 10.0
STUCK_SECONDS: Final = 30.0


@dataclass(slots=True)
class Upkeep:
    """The loops, and when each last got through."""

    sweeper: Sweeper
    relay: Relay
    outbox: Outbox
    dead_letters: DeadLetters
    forgetter: Forgetter
    seconds: float
    succeeded: dict[str, float] = field(default_factory=dict[str, float])

    async def sweep_for_ever(self) -> None:
        """Sweep, then rest."""
        await self._for_ever("sweep", self._sweep, self.seconds)

    async def _sweep(self) -> None:
        await self.sweeper.run_once()
        waiting, oldest = await self.outbox.waiting()
        metrics.OUTBOX_WAITING.set(waiting)
        metrics.OUTBOX_OLDEST.set(oldest)
        unanswered, oldest = await self.dead_letters.unanswered()
        metrics.DEAD_LETTERS_UNANSWERED.set(unanswered)
        metrics.DEAD_LETTERS_OLDEST.set(oldest)

    async def relay_for_ever(self) -> None:
        """Publish while there is something, else rest."""

        async def drain() -> None:
            while await self.relay.run_once():
                pass

        await self._for_ever("relay", drain, RELAY_SECONDS)

    async def forget_for_ever(self) -> None:
        """Forget what is old."""

        async def forget() -> None:
            await self.forgetter.run_once()

        await self._for_ever("retention", forget, RETENTION_SECONDS)

    async def _for_ever(self, name: str, body: Callable[[], Awaitable[None]], rest: float) -> None:
        self.succeeded[name] = time.monotonic()
        while True:
            try:
                await body()
                self.succeeded[name] = time.monotonic()
                metrics.UPKEEP_SWEEPS.labels(name, "ok").inc()
                metrics.UPKEEP_LAST_SUCCESS.labels(name).set_to_current_time()
            except LedgerUnavailable as error:
                self.sweeper.ledger_was_away()
                metrics.UPKEEP_SWEEPS.labels(name, "failed").inc()
                log.warning("upkeep_waits", loop=name, error=str(error))
            except Exception:
                metrics.UPKEEP_SWEEPS.labels(name, "failed").inc()
                log.exception("upkeep_failed", loop=name)
            await asyncio.sleep(rest)

    def health(self) -> dict[str, str | None]:
        """Report which loop makes no progress."""
        now = time.monotonic()
        return {
            name: f"no success for {now - at:.0f} s" if now - at > STUCK_SECONDS else None
            for name, at in self.succeeded.items()
        }


@asynccontextmanager
async def upkeep(settings: Settings) -> AsyncGenerator[Upkeep]:
    """Build and tear down upkeep's parts."""
    policy = load_policy(settings.policy)
    actor = f"upkeep@{socket.gethostname()}:{os.getpid()}"
    engine = create_engine(settings.database.get_secret_value(), pool_size=4, name="fairlead-upkeep")
    redis = create_redis(settings.redis)
    producer = EventProducer(bootstrap=settings.kafka, client_id=f"fairlead-upkeep-{os.getpid()}")
    await producer.start()
    outbox = Outbox(engine)
    frames = FrameLog(redis)
    sweeper = Sweeper(
        sweeps=Sweeps(engine, deadlines=policy.deadlines, rescues=policy.rescues, actor=actor),
        frames=frames,
        redis=redis,
        dispatcher=Dispatcher(redis),
        settler=AbandonedSettler(engine=engine, frames=frames, redis=redis, actor=actor, policy=policy),
        lease=policy.deadlines.lease,
    )
    try:
        yield Upkeep(
            sweeper,
            Relay(outbox=outbox, producer=producer),
            outbox,
            DeadLetters(engine),
            Forgetter(Retention(engine, days=policy.retention)),
            settings.upkeep_seconds,
        )
    finally:
        await producer.stop()
        await redis.aclose()
        await engine.dispose()


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    async with upkeep(settings) as process, serve_metrics(settings.metrics_port, process.health):
        beats = {
            "sweep": process.sweep_for_ever(),
            "relay": process.relay_for_ever(),
            "retention": process.forget_for_ever(),
            "loop-lag": watch_loop_lag(),
        }
        await beat_until(stop, beats)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    run_until_signal("upkeep", settings, serve)
