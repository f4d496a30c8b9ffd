"""The orchestrator process: the only place that knows all its parts."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog import get_logger

from infra.celery.dispatch import Dispatcher
from infra.embeddings.configured import configured_embedder
from infra.kafka.consumer import EventConsumer, consume_for_ever
from infra.kafka.producer import EventProducer
from infra.policy import load_policy
from infra.postgres.dead_letters import DeadLetters
from infra.postgres.engine import create_engine
from infra.postgres.inbox import Inbox
from infra.postgres.statements import LedgerUnavailable
from infra.postgres.sweeps import Sweeps
from infra.processes import beat_until, run_until_signal
from infra.redis.client import create_redis
from infra.redis.frame_log import FrameLog
from infra.redis.wake import announcements
from infra.settings import Settings
from infra.telemetry.loop_lag import watch_loop_lag
from infra.telemetry.metrics import serve_metrics
from infra.telemetry.pulse import Pulse
from schemas.ids import TurnId
from schemas.names import GROUP_ORCHESTRATOR, TOPIC_TURNS
from workers.answers.abandoned import AbandonedSettler
from workers.orchestrator.intake import Intake
from workers.orchestrator.language import Languages
from workers.orchestrator.preparation import Preparation
from workers.orchestrator.routing import routing_of
from workers.researcher.researcher import Researcher

log = get_logger(__name__)

CONCURRENT_PREPARATIONS: Final = 400
"""Most of them wait for a model that routes. PostgreSQL is asked by as many at a time as its pool has connections."""

MAX_WAITING: Final = 1_000
"""Above this many turns under preparation, intake waits: Kafka is the better queue."""

HEADS_SECONDS: Final = 1.0
"""Between two looks for heads that nobody announced: while Redis is away, nobody can."""

STUCK_SECONDS: Final = 60.0


class Orchestrator:
    """Intake in order, preparation concurrent across conversations."""

    def __init__(
        self,
        settings: Settings,
        *,
        inbox: Inbox,
        preparation: Preparation,
        sweeps: Sweeps,
        redis: Redis,
        producer: EventProducer,
        dead_letters: DeadLetters,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._preparation = preparation
        self._sweeps = sweeps
        self._redis = redis
        self._producer = producer
        self._dead_letters = dead_letters
        self._places = asyncio.Semaphore(CONCURRENT_PREPARATIONS)
        self._tasks: dict[asyncio.Task[None], TurnId] = {}
        self.pulse = Pulse()
        self.last_poll = time.monotonic()

    def start_turn(self, turn_id: TurnId) -> None:
        """Prepare a turn beside the others."""
        task = asyncio.create_task(self._prepare(turn_id), name=f"prepare-{turn_id}")
        self._tasks[task] = turn_id
        task.add_done_callback(self._tasks.pop)

    async def _prepare(self, turn_id: TurnId) -> None:
        try:
            async with self._places:
                await self._preparation.run(turn_id)
        except Exception:
            log.exception("preparation_failed", turn_id=turn_id)

    async def consume(self) -> None:
        """Take events in for ever, with a new consumer when one breaks."""
        await consume_for_ever(self._consumer, self._take_in)

    def _consumer(self) -> EventConsumer:
        return EventConsumer(
            bootstrap=self._settings.kafka,
            topic=TOPIC_TURNS,
            group=GROUP_ORCHESTRATOR,
            client_id=f"fairlead-orchestrator-{os.getpid()}",
            fetch_max_wait_ms=self._settings.kafka_fetch_max_wait_ms,
        )

    async def _take_in(self, consumer: EventConsumer) -> None:
        intake = Intake(
            consumer=consumer,
            inbox=self._inbox,
            producer=self._producer,
            dead_letters=self._dead_letters,
            start=self.start_turn,
        )
        while True:
            await intake.run_once()
            self.last_poll = time.monotonic()
            while len(self._tasks) > MAX_WAITING:
                await asyncio.wait(set(self._tasks), return_when=asyncio.FIRST_COMPLETED)

    async def listen(self) -> None:
        """Start turns whose predecessor has settled."""
        while True:
            try:
                async for turn_id in announcements(self._redis):
                    self.start_turn(turn_id)
            except (RedisError, OSError) as error:
                log.warning("wake_channel_lost", error=type(error).__name__)
                await asyncio.sleep(1)

    async def find_for_ever(self) -> None:
        """Start heads that nobody announced."""
        self.pulse.watch("heads", within=STUCK_SECONDS)
        while True:
            try:
                await self.find_heads()
            except LedgerUnavailable as error:
                log.warning("heads_wait", error=str(error))
            except Exception:
                log.exception("heads_not_found")
            self.pulse.passed("heads")
            await asyncio.sleep(HEADS_SECONDS)

    async def find_heads(self) -> None:
        """Start, once, the heads of conversations that nobody prepares; those under way here are not among them.

        Raises:
            LedgerUnavailable: PostgreSQL does not answer.
        """
        if len(self._tasks) > MAX_WAITING:
            return
        found = await self._sweeps.wakeable()
        for turn_id in set(found) - set(self._tasks.values()):
            self.start_turn(turn_id)

    async def drain(self) -> None:
        """Finish what is being prepared."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=5)

    def health(self) -> dict[str, str | None]:
        """Report progress of each loop."""
        late = time.monotonic() - self.last_poll
        return {
            "intake": f"no poll of Kafka for {late:.0f} s" if late > STUCK_SECONDS else None,
            **self.pulse.health(),
        }


@asynccontextmanager
async def orchestrator(settings: Settings) -> AsyncGenerator[Orchestrator]:
    """Build and tear down the orchestrator's parts."""
    policy = load_policy(settings.policy)
    actor = f"orchestrator@{socket.gethostname()}:{os.getpid()}"
    engine = create_engine(
        settings.database.get_secret_value(), pool_size=16, name="fairlead-orchestrator", pool_timeout=10
    )
    redis = create_redis(settings.redis)
    producer = EventProducer(bootstrap=settings.kafka, client_id=f"fairlead-orchestrator-{os.getpid()}")
    await producer.start()
    inbox = Inbox(
        engine,
        deadlines=policy.deadlines,
        actor=actor,
        history=max(agent.history_turns for agent in policy.agents.values()),
        coalesce=policy.coalesce,
    )
    routing, client = routing_of(policy, settings)
    languages = Languages(policy.routing.languages, clear=policy.routing.clear)
    languages.begin()
    embedder = configured_embedder(settings)
    preparation = Preparation(
        inbox=inbox,
        routing=routing,
        retrieve=Researcher(engine, policy=policy.knowledge, embedder=embedder).retrieve,
        languages=languages,
        dispatcher=Dispatcher(redis),
        policy=policy,
        served=settings.served_backends,
        settler=AbandonedSettler(engine=engine, frames=FrameLog(redis), redis=redis, actor=actor, policy=policy),
    )
    try:
        yield Orchestrator(
            settings,
            inbox=inbox,
            preparation=preparation,
            sweeps=Sweeps(engine, deadlines=policy.deadlines, rescues=policy.rescues, actor=actor),
            redis=redis,
            producer=producer,
            dead_letters=DeadLetters(engine),
        )
    finally:
        await producer.stop()
        for opened in (client, embedder):
            if opened is not None:
                await opened.aclose()
        await redis.aclose()
        await engine.dispose()


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    async with orchestrator(settings) as process, serve_metrics(settings.metrics_port, process.health):
        beats = {
            "consume": process.consume(),
            "wake": process.listen(),
            "heads": process.find_for_ever(),
            "loop-lag": watch_loop_lag(),
        }
        await beat_until(stop, beats)
        await process.drain()


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    run_until_signal("orchestrator", settings, serve)
