"""The product's own parts on real servers in one event loop: from the ledger's first row to the terminal frame."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.celery.dispatch import Dispatcher
from infra.policy import load_policy
from infra.postgres.engine import create_engine
from infra.postgres.inbox import Inbound, Inbox
from infra.postgres.sweeps import Sweeps
from infra.redis.client import create_redis
from infra.redis.frame_log import FrameLog
from infra.settings import Settings
from schemas.agents import Agent, Lane, lane_of
from schemas.events import TurnSubmitted
from schemas.frames import WireFrame
from schemas.ids import TurnId, turn_id_for
from schemas.knowledge import Retrieve, Retrieved
from schemas.names import CELERY_PREFIX, TOPIC_DEAD_LETTERS, TOPIC_TURNS
from schemas.policy import BreakerPolicy, Policy
from schemas.routing_policy import RouterName
from simulators.testing import SimulatorHandle, running
from workers.answers.abandoned import AbandonedSettler
from workers.dead_letters.route import Routing
from workers.lanes.process import AgentRuntime, agent_runtime
from workers.orchestrator.language import Languages
from workers.orchestrator.preparation import Preparation
from workers.orchestrator.routing import routing_of
from workers.upkeep.sweep import Sweeper

TENANT = "acme"


async def nothing_known(tenant: str, text: str, *, language: str) -> Retrieved:
    """Return that there is no knowledge base."""
    return Retrieved()


@dataclass
class Pipeline:
    """Everything between the ledger and the screen."""

    engine: AsyncEngine
    redis: Redis
    policy: Policy
    inbox: Inbox
    preparation: Preparation
    runtime: AgentRuntime
    sweeper: Sweeper
    routing: Routing
    frames: FrameLog
    tgi: SimulatorHandle
    openai: SimulatorHandle
    _offset: int = field(default=0)

    def inbound(
        self, conversation: str, message: str, *, key: str | None = None, offset: int, channel: str = "test"
    ) -> Inbound:
        """Return a message as it comes out of Kafka."""
        event = TurnSubmitted(
            turn_id=turn_id_for(TENANT, key or uuid.uuid4().hex),
            tenant_id=TENANT,
            conversation_id=conversation,
            channel=channel,
            text=message,
            body_sha256=hashlib.sha256(message.encode()).hexdigest(),
        )
        return Inbound(event, 0, offset, None, value=event.model_dump_json().encode())

    async def record(self, conversation: str, message: str, *, key: str | None = None, channel: str = "test") -> TurnId:
        """Write a message down as the orchestrator would on reading its event."""
        self._offset += 1
        item = self.inbound(conversation, message, key=key, offset=self._offset, channel=channel)
        await self.inbox.record(TOPIC_TURNS, [item])
        return TurnId(item.event.turn_id)

    async def queue(self, conversation: str, message: str) -> TurnId:
        """Record a message and bring it to its lane."""
        turn_id = await self.record(conversation, message)
        await self.preparation.run(turn_id)
        return turn_id

    async def say(self, conversation: str, message: str) -> TurnId:
        """Carry a message through to its end."""
        turn_id = await self.queue(conversation, message)
        await self.answer(turn_id)
        return turn_id

    async def answer(self, turn_id: TurnId, lane: Lane | None = None) -> None:
        """Do what a worker does with a hint."""
        await self.runtime.executor.run(turn_id, lane or lane_of(Agent.DISCOVERY))

    async def route_dead_letters(self) -> None:
        """Do what the dead-letter worker does once the copies of all dead letters are on their topic."""
        found = await self.query("SELECT turn_id::text AS t FROM outbox WHERE topic = :topic", topic=TOPIC_DEAD_LETTERS)
        await self.routing.route([TurnId(str(row["t"])) for row in found])

    async def row(self, turn_id: TurnId) -> dict[str, object]:
        """Return the turn's row."""
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT * FROM turns WHERE turn_id = CAST(:t AS uuid)"), {"t": turn_id}
            )
            return dict(found.mappings().one())

    async def query(self, statement: str, **values: object) -> list[dict[str, object]]:
        """Run a query."""
        async with self.engine.connect() as connection:
            found = await connection.execute(text(statement), values)
            return [dict(row) for row in found.mappings()] if found.returns_rows else []

    async def log(self, turn_id: TurnId) -> list[WireFrame]:
        """Return the frames in the turn's log."""
        return await self.frames.read(turn_id, 0)

    async def hints(self, lane: Lane) -> int:
        """Return how many hints wait in a lane."""
        return await self.redis.llen(CELERY_PREFIX + lane.value)

    def calls(self, turn_id: TurnId) -> tuple[int, int]:
        """Return how often the primary and the frontier model were called to answer the turn, not to route it."""
        return len(self.tgi.requests(turn_id)), len(self.openai.requests(turn_id))


def content_of(frames: list[WireFrame]) -> str:
    """Return the content that a watcher of these frames has on the screen."""
    deltas = [json.loads(frame.json)["choices"][0]["delta"] for frame in frames]
    return "".join(delta.get("content", "") for delta in deltas)


def patient(policy: Policy) -> Policy:
    """Return the policy with breakers that open for no test's failures."""
    return policy.model_copy(update={"breaker": BreakerPolicy(calls=100_000)})


def quick(policy: Policy, **deadlines: float) -> Policy:
    """Return the policy with other deadlines, first-token clocks of half a second, and patient breakers."""
    models = {name: model.model_copy(update={"first_token": 0.5}) for name, model in policy.models.items()}
    return patient(policy).model_copy(
        update={"deadlines": policy.deadlines.model_copy(update=deadlines), "models": models}
    )


@asynccontextmanager
async def pipeline(
    database_url: str,
    redis_url: str,
    *,
    policy: Policy | None = None,
    first_token_ms: float = 0,
    inter_token_ms: float = 0,
    router: RouterName = "rules",
    retrieve: Retrieve = nothing_known,
    deadline: float = 2.5,
) -> AsyncGenerator[Pipeline]:
    """Build the product's parts around two simulators, routed by rules unless another router is named."""
    policy = policy or patient(load_policy())
    policy = policy.model_copy(
        update={"routing": policy.routing.model_copy(update={"router": router, "deadline": deadline})}
    )
    async with (
        running("tgi", first_token_ms=first_token_ms, inter_token_ms=inter_token_ms) as tgi,
        running(
            "openai",
            first_token_ms=first_token_ms,
            inter_token_ms=inter_token_ms,
            models=policy.served_by("frontier"),
        ) as openai,
    ):
        settings = Settings(
            redis=redis_url,
            database=SecretStr(database_url),
            discovery_base_url=tgi.base_url,
            frontier_base_url=openai.base_url,
            metrics_port=-1,
            drain_seconds=5,
        )
        engine, redis = create_engine(database_url), create_redis(redis_url)
        routing, client = routing_of(policy, settings)
        frames = FrameLog(redis)
        dispatcher = Dispatcher(redis)
        inbox = Inbox(
            engine, deadlines=policy.deadlines, actor="orchestrator@test", history=10, coalesce=policy.coalesce
        )
        sweeps = Sweeps(engine, deadlines=policy.deadlines, rescues=policy.rescues, actor="upkeep@test")
        settler = AbandonedSettler(engine=engine, frames=frames, redis=redis, actor="upkeep@test", policy=policy)
        sweeper = Sweeper(
            sweeps=sweeps,
            frames=frames,
            redis=redis,
            dispatcher=dispatcher,
            settler=settler,
            lease=policy.deadlines.lease,
        )
        try:
            async with agent_runtime(settings, policy) as runtime:
                parts = Pipeline(
                    engine=engine,
                    redis=redis,
                    policy=policy,
                    inbox=inbox,
                    preparation=Preparation(
                        inbox=inbox,
                        routing=routing,
                        retrieve=retrieve,
                        languages=Languages(policy.routing.languages, clear=policy.routing.clear),
                        dispatcher=dispatcher,
                        policy=policy,
                        served=settings.served_backends,
                        settler=settler,
                    ),
                    runtime=runtime,
                    sweeper=sweeper,
                    routing=Routing(sweeps=sweeps, dispatcher=dispatcher, settler=settler),
                    frames=frames,
                    tgi=tgi,
                    openai=openai,
                )
                await parts.query("INSERT INTO tenants (tenant_id, name) VALUES (:t, 'Acme')", t=TENANT)
                yield parts
        finally:
            if client is not None:
                await client.aclose()
            await redis.aclose()
            await engine.dispose()


async def until(condition: object, *, seconds: float = 10) -> None:
    """Wait for an async or plain condition to hold."""
    async with asyncio.timeout(seconds):
        while True:
            assert callable(condition)
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.02)
