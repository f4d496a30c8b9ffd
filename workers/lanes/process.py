"""A worker process for one or more lanes: the only place that knows all its parts."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from celery import Celery
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog import get_logger

from infra.celery.app import create_app
from infra.celery.dispatch import Dispatcher, Hint
from infra.crash_points import arm, reach
from infra.embeddings.configured import configured_embedder
from infra.policy import load_policy
from infra.postgres.breakers import BreakerTable
from infra.postgres.claims import Claims
from infra.postgres.engine import create_engine
from infra.postgres.waiting import Waiting
from infra.processes import end
from infra.redis.client import create_redis
from infra.redis.frame_log import FrameLog
from infra.settings import Settings
from infra.telemetry import metrics
from infra.telemetry.logs import configure_logs, own_celery_logs
from infra.telemetry.loop_lag import watch_loop_lag
from infra.telemetry.metrics import serve_metrics
from infra.telemetry.pulse import Pulse
from infra.telemetry.tracing import configure_tracing, current_traceparent
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.policy import Policy
from workers.agents.artefact import prompt_versions
from workers.answers.gate import gates_of
from workers.answers.publisher import Publisher
from workers.answers.settle import Settler
from workers.answers.writer import FrameWriter
from workers.assets.attach import Attachments
from workers.breaker import Breakers
from workers.executor import Executor, run_safely
from workers.lanes.door import Capacity, open_door, stopping
from workers.lanes.loop_thread import LoopThread
from workers.lanes.poll import Poll
from workers.live_turns import LiveTurns
from workers.providers.backends import Backends
from workers.researcher.researcher import Researcher

log = get_logger(__name__)


@dataclass(slots=True)
class AgentRuntime:
    """What lives on the event loop of an agent worker."""

    executor: Executor
    dispatcher: Dispatcher
    settings: Settings
    capacity: Capacity
    pulse: Pulse
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    poll: Poll | None = None

    def start(self, turn_id: TurnId, lane: Lane, done: Callable[[], None]) -> None:
        """Start carrying a turn."""
        task = asyncio.create_task(run_safely(self.executor, turn_id, lane), name=f"turn-{turn_id}")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: done())

    async def drain(self) -> None:
        """Wait for the turns under way; what is left after the drain time is left to its lease."""
        if self.tasks:
            log.info("draining", turns=len(self.tasks), seconds=self.settings.drain_seconds)
            reach("drain_mid_stream")
            await asyncio.wait(set(self.tasks), timeout=self.settings.drain_seconds)
        await end(list(self.tasks))

    def health(self) -> dict[str, str | None]:
        """Report progress: the lease loop is the heart of this process."""
        live = self.executor.live
        late = asyncio.get_running_loop().time() - live.last_renewal
        return {
            "leases": f"not renewed for {late:.0f} s" if late > self.executor.policy.deadlines.lease else None,
            **self.pulse.health(),
            **(self.poll.health() if self.poll else {}),
        }


def _claims(engine: AsyncEngine, policy: Policy, owner: str) -> Claims:
    return Claims(
        engine,
        deadlines=policy.deadlines,
        owner=owner,
        history=max(agent.history_turns for agent in policy.agents.values()),
        policy_version=policy.version,
        prompts=prompt_versions(),
    )


@asynccontextmanager
async def agent_runtime(settings: Settings, policy: Policy, lanes: Sequence[Lane] = ()) -> AsyncGenerator[AgentRuntime]:
    """Build and tear down what an agent worker needs on its loop. Without lanes it only carries what it is given."""
    owner = f"agents@{socket.gethostname()}:{os.getpid()}"
    gates = gates_of(policy)
    engine = create_engine(settings.database.get_secret_value(), pool_size=24, name="fairlead-agents", pool_timeout=10)
    redis = create_redis(settings.redis, connections=16)
    frames = FrameLog(redis)
    claims = _claims(engine, policy, owner)
    live = LiveTurns(claims, lease=policy.deadlines.lease)

    async def still_owner(writer: FrameWriter) -> bool:
        return await claims.owns_stream(writer.stream.turn_id, writer.stream.epoch)

    publisher = Publisher(frames, still_owner)
    backends = Backends(settings, policy)
    attachments = Attachments.of(settings, policy.assets, engine)
    embedder = configured_embedder(settings)
    breakers = Breakers(BreakerTable(engine, policy=policy.breaker, actor=owner), policy=policy.breaker)
    executor = Executor(
        policy=policy,
        claims=claims,
        frames=frames,
        publisher=publisher,
        settler=Settler(engine=engine, frames=frames, redis=redis, actor=owner, policy=policy),
        backends=backends,
        breakers=breakers,
        live=live,
        attachments=attachments,
        retrieve=Researcher(engine, policy=policy.knowledge, embedder=embedder).retrieve,
        gates=gates,
    )
    runtime = AgentRuntime(executor, Dispatcher(redis), settings, Capacity(settings.worker_capacity), Pulse())
    beats = [
        asyncio.create_task(publisher.run(), name="publisher"),
        asyncio.create_task(live.run(), name="leases"),
        asyncio.create_task(breakers.run(), name="breakers"),
        asyncio.create_task(watch_loop_lag(), name="loop-lag"),
    ]
    if lanes:
        runtime.poll = _poll(runtime, lanes, Waiting(engine, lanes=lanes), redis)
        polling = [asyncio.create_task(runtime.poll.run(), name="poll")]
    else:
        polling = []
    metrics.TURN_CAPACITY.set(settings.worker_capacity)
    try:
        async with serve_metrics(settings.metrics_port, runtime.health, degraded=backends.degraded):
            yield runtime
            await end(polling)
            await runtime.drain()
    finally:
        await end([*polling, *beats])
        await attachments.aclose()
        if embedder is not None:
            await embedder.aclose()
        await backends.aclose()
        await redis.aclose()
        await engine.dispose()


def _poll(runtime: AgentRuntime, lanes: Sequence[Lane], waiting: Waiting, redis: Redis) -> Poll:
    return Poll(
        waiting=waiting,
        redis=redis,
        lanes=lanes,
        capacity=runtime.capacity,
        start=runtime.start,
        stopping=stopping,
        pulse=runtime.pulse,
    )


def run(settings: Settings, lanes: Sequence[Lane]) -> None:
    """Serve `lanes` until SIGTERM: Celery on this thread, turns on the loop's."""
    arm()
    configure_logs("agents", settings)
    own_celery_logs()
    stop_tracing = configure_tracing("agents", settings)
    app = create_app(settings.redis)
    threads = LoopThread()
    threads.start()
    context = agent_runtime(settings, load_policy(settings.policy), lanes)
    runtime = threads.submit(context.__aenter__()).result()
    try:
        signal.signal(signal.SIGTERM, _leave)  # until Celery has handlers of its own: turns are under way already
        _serve(app, lanes, settings, threads, runtime)
    finally:
        threads.submit(context.__aexit__(None, None, None)).result()
        threads.stop()
        stop_tracing()


def _leave(signum: int, _: FrameType | None) -> NoReturn:
    log.info("told_to_stop_while_starting", signal=signum)
    raise SystemExit(0)


def _serve(app: Celery, lanes: Sequence[Lane], settings: Settings, threads: LoopThread, runtime: AgentRuntime) -> None:
    def start(turn_id: TurnId, lane: Lane, done: Callable[[], None]) -> None:
        if runtime.poll is not None:
            runtime.poll.hint_taken()
        threads.loop.call_soon_threadsafe(runtime.start, turn_id, lane, done)

    def refuse(turn_id: TurnId, lane: Lane) -> None:
        threads.submit(runtime.dispatcher.send([Hint(turn_id, lane, current_traceparent())])).result(5)

    open_door(app, capacity=runtime.capacity, start=start, refuse=refuse)
    worker = app.Worker(
        pool_cls="solo",
        concurrency=1,
        queues=[lane.value for lane in lanes],
        hostname=f"agents-{os.getpid()}@{socket.gethostname()}",
        without_mingle=True,
        without_gossip=True,
        quiet=True,  # its banner is no log line
        loglevel=settings.log_level.upper(),
    )
    worker.start()
