"""The dead-letter process: the only place that knows all its parts. More than one may run."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from structlog import get_logger

from infra.celery.dispatch import Dispatcher
from infra.kafka.consumer import EventConsumer, consume_for_ever
from infra.policy import load_policy
from infra.postgres.dead_letters import DeadLetters
from infra.postgres.engine import create_engine
from infra.postgres.replay_runs import ReplayRuns
from infra.postgres.statements import LedgerUnavailable
from infra.postgres.sweeps import Sweeps
from infra.processes import beat_until, run_until_signal
from infra.redis.client import create_redis
from infra.redis.frame_log import FrameLog
from infra.settings import Settings
from infra.telemetry.loop_lag import watch_loop_lag
from infra.telemetry.metrics import serve_metrics
from infra.telemetry.pulse import Pulse
from schemas.names import GROUP_DEAD_LETTERS, TOPIC_DEAD_LETTERS
from workers.answers.abandoned import AbandonedSettler
from workers.dead_letters.replays import Replays
from workers.dead_letters.route import DeadLetterIntake, Routing

log = get_logger(__name__)

STUCK_SECONDS: Final = 60.0
REST_SECONDS: Final = 0.25
"""Between looks at replay jobs while none moves: a pause or an abort is seen within a second."""


class DeadLetterWorker:
    """Routes dead letters for ever, with a new consumer when one breaks, and works on replay jobs beside it."""

    def __init__(self, settings: Settings, *, dead_letters: DeadLetters, routing: Routing, replays: Replays) -> None:
        self._settings = settings
        self._dead_letters = dead_letters
        self._routing = routing
        self._replays = replays
        self.pulse = Pulse()
        self.pulse.watch("routing", within=STUCK_SECONDS)
        self.pulse.watch("replays", within=STUCK_SECONDS)

    async def route(self) -> None:
        """Read the dead-letter topic for ever."""
        await consume_for_ever(self._consumer, self._route, waits_for=(LedgerUnavailable,))

    def _consumer(self) -> EventConsumer:
        return EventConsumer(
            bootstrap=self._settings.kafka,
            topic=TOPIC_DEAD_LETTERS,
            group=GROUP_DEAD_LETTERS,
            client_id=f"fairlead-dead-letters-{os.getpid()}",
            # Nobody waits for a letter's next step as visitors wait for an answer: no need to ask so often.
            fetch_max_wait_ms=max(100, self._settings.kafka_fetch_max_wait_ms),
        )

    async def _route(self, consumer: EventConsumer) -> None:
        intake = DeadLetterIntake(consumer=consumer, dead_letters=self._dead_letters, routing=self._routing)
        while True:
            await intake.run_once()
            self.pulse.passed("routing")

    async def replay(self) -> None:
        """Work on replay jobs for ever."""
        while True:
            moved = 0
            try:
                moved = await self._replays.run_once()
            except LedgerUnavailable as error:
                log.warning("replays_wait", error=str(error))
            except Exception:
                # Routing must go on, whatever a job does.
                log.exception("replays_failed")
            self.pulse.passed("replays")
            if not moved:
                await asyncio.sleep(REST_SECONDS)


@asynccontextmanager
async def dead_letter_worker(settings: Settings) -> AsyncGenerator[DeadLetterWorker]:
    """Build and tear down the parts of a dead-letter worker."""
    policy = load_policy(settings.policy)
    actor = f"dead-letters@{socket.gethostname()}:{os.getpid()}"
    engine = create_engine(
        settings.database.get_secret_value(), pool_size=4, name="fairlead-dead-letters", pool_timeout=10
    )
    redis = create_redis(settings.redis)
    routing = Routing(
        sweeps=Sweeps(engine, deadlines=policy.deadlines, rescues=policy.rescues, actor=actor),
        dispatcher=Dispatcher(redis),
        settler=AbandonedSettler(engine=engine, frames=FrameLog(redis), redis=redis, actor=actor, policy=policy),
    )
    runs = ReplayRuns(
        engine,
        owner=actor,
        lease=policy.deadlines.lease,
        waiting=policy.deadlines.waiting,
        history=max(agent.history_turns for agent in policy.agents.values()),
    )
    try:
        yield DeadLetterWorker(
            settings,
            dead_letters=DeadLetters(engine),
            routing=routing,
            replays=Replays(runs=runs, redis=redis),
        )
    finally:
        await redis.aclose()
        await engine.dispose()


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    async with dead_letter_worker(settings) as process, serve_metrics(settings.metrics_port, process.pulse.health):
        await beat_until(stop, {"route": process.route(), "replay": process.replay(), "loop-lag": watch_loop_lag()})


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    run_until_signal("dead-letters", settings, serve)
