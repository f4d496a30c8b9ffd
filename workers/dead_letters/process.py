"""The dead-letter process: the only place that knows all its parts. More than one may run."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from structlog import get_logger

from infra.celery.dispatch import Dispatcher
from infra.kafka.consumer import ConsumerBroken, EventConsumer
from infra.policy import load_policy
from infra.postgres.dead_letters import DeadLetters
from infra.postgres.engine import create_engine
from infra.postgres.statements import LedgerUnavailable
from infra.postgres.sweeps import Sweeps
from infra.processes import beat_until, run_until_signal
from infra.redis.client import create_redis
from infra.redis.frame_log import FrameLog
from infra.settings import Settings
from infra.telemetry.loop_lag import watch_loop_lag
from infra.telemetry.metrics import serve_metrics
from schemas.names import GROUP_DEAD_LETTERS, TOPIC_DEAD_LETTERS
from workers.answers.abandoned import AbandonedSettler
from workers.dead_letters.route import DeadLetterIntake, Routing

log = get_logger(__name__)

STUCK_SECONDS: Final = 60.0


class DeadLetterWorker:
    """Routes dead letters for ever, with a new consumer when one breaks."""

    def __init__(self, settings: Settings, *, dead_letters: DeadLetters, routing: Routing) -> None:
        self._settings = settings
        self._dead_letters = dead_letters
        self._routing = routing
        self.last_poll = time.monotonic()

    async def route(self) -> None:
        """Read the dead-letter topic for ever."""
        pause = 0.5
        while True:
            consumer = EventConsumer(
                bootstrap=self._settings.kafka,
                topic=TOPIC_DEAD_LETTERS,
                group=GROUP_DEAD_LETTERS,
                client_id=f"fairlead-dead-letters-{os.getpid()}",
                fetch_max_wait_ms=self._settings.kafka_fetch_max_wait_ms,
            )
            try:
                await consumer.start()
                try:
                    await self._route(consumer)
                finally:
                    await consumer.stop()
            except (ConsumerBroken, LedgerUnavailable) as error:
                log.warning("routing_waits", error=str(error), pause=pause)
                await asyncio.sleep(pause)
                pause = min(10.0, pause * 2)

    async def _route(self, consumer: EventConsumer) -> None:
        intake = DeadLetterIntake(consumer=consumer, dead_letters=self._dead_letters, routing=self._routing)
        while True:
            await intake.run_once()
            self.last_poll = time.monotonic()

    def health(self) -> dict[str, str | None]:
        """Report progress of the poll loop."""
        late = time.monotonic() - self.last_poll
        return {"routing": f"no poll of Kafka for {late:.0f} s" if late > STUCK_SECONDS else None}


@asynccontextmanager
async def dead_letter_worker(settings: Settings) -> AsyncGenerator[DeadLetterWorker]:
    """Build and tear down the parts of a dead-letter worker."""
    policy = load_policy(settings.policy)
    actor = f"dead-letters@{socket.gethostname()}:{os.getpid()}"
    engine = create_engine(
        settings.database.get_secret_value(), pool_size=4, name="fairlead-dead-letters", pool_timeout=10
    )
    redis = create_redis(settings.redis)
    try:
        yield DeadLetterWorker(
            settings,
            dead_letters=DeadLetters(engine),
            routing=Routing(
                sweeps=Sweeps(engine, deadlines=policy.deadlines, rescues=policy.rescues, actor=actor),
                dispatcher=Dispatcher(redis),
                settler=AbandonedSettler(
                    engine=engine, frames=FrameLog(redis), redis=redis, actor=actor, policy=policy
                ),
            ),
        )
    finally:
        await redis.aclose()
        await engine.dispose()


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    async with dead_letter_worker(settings) as process, serve_metrics(settings.metrics_port, process.health):
        await beat_until(stop, {"route": process.route(), "loop-lag": watch_loop_lag()})


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    run_until_signal("dead-letters", settings, serve)
