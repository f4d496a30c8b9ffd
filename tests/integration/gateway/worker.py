"""A worker to play the other side of the gateway: it writes the ledger with SQL and frames with the frame log."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import row, rows
from infra.postgres.views import frames_of_view, load_turn
from infra.processes import end
from infra.redis.frame_log import Append, FrameLog, Stream
from schemas.envelope import text_headers
from schemas.events import TurnSubmitted
from schemas.frames import Phase, TurnStreamInfo, WireFrame, render
from schemas.ids import TurnId
from schemas.names import TOPIC_TURNS
from schemas.turns import TurnState

PIECES = ("Hello ", "<b>there", "</b>, ", "friend.")

_RECORD = text("""
WITH c AS (
    INSERT INTO conversations AS c (tenant_id, conversation_id, last_seq) VALUES (:tenant, :conversation, 1)
    ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET last_seq = c.last_seq + 1 RETURNING last_seq
)
INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, metadata, history, body_sha256,
                   kafka_topic, kafka_partition, kafka_offset, state, deadline_at)
SELECT CAST(:turn_id AS uuid), :tenant, :conversation, last_seq, :channel, :text, CAST(:metadata AS jsonb),
       CAST(:history AS jsonb), :digest, 'fairlead.turns', 0, last_seq, 'received',
       clock_timestamp() + interval '5 minutes'
FROM c
RETURNING extract(epoch FROM created_at)::bigint AS created
""")
_SEEN = text("SELECT 1 AS one FROM turns WHERE turn_id = CAST(:turn_id AS uuid)")
_QUEUE = text(
    "UPDATE turns SET state = 'queued', agent = 'support', plan = '{}' WHERE turn_id = CAST(:turn_id AS uuid)"
)
_SETTLE = text("""
UPDATE turns SET state = :state, content = :content, cuts = CAST(:cuts AS int[]), closing = :closing,
       source = 'primary', done_at = clock_timestamp()
WHERE turn_id = CAST(:turn_id AS uuid)
""")
_ATTEMPT = text("""
INSERT INTO attempts (turn_id, ordinal, epoch, model, state, input_tokens, output_tokens, ended_at)
VALUES (CAST(:turn_id AS uuid), 1, 1, 'tiny', 'succeeded', 11, 7, clock_timestamp())
""")


@dataclass
class PlayedTurn:
    """One turn in the worker's hands."""

    worker: "Worker"
    event: TurnSubmitted
    info: TurnStreamInfo
    pieces: list[str] = field(default_factory=list[str])

    @property
    def turn_id(self) -> TurnId:
        return TurnId(self.event.turn_id)

    @property
    def stream(self) -> Stream:
        return Stream(self.turn_id, self.event.tenant_id, self.event.conversation_id, 1)

    async def route(self) -> None:
        """Choose a lane, arm the fence, show `routed`."""
        await rows(self.worker.engine, _QUEUE, {"turn_id": self.turn_id})
        await self.worker.log.arm(self.stream, render(self.info, 1, Phase.ROUTED))

    async def say(self, *pieces: str) -> None:
        """Publish content frames."""
        first = 2 + len(self.pieces)
        frames = [render(self.info, first + i, Phase.STREAMING, piece) for i, piece in enumerate(pieces)]
        self.pieces.extend(pieces)
        await self.worker.log.append([Append(self.stream, first, [frame.encode() for frame in frames])])

    async def settle(
        self, state: TurnState = TurnState.ANSWERED, *, closing: str | None = None, publish: bool = True
    ) -> None:
        """End the turn in the ledger and, unless the publisher is dead, publish the terminal frame."""
        values = {
            "turn_id": self.turn_id,
            "state": state,
            "content": "".join(self.pieces),
            "cuts": [len(piece) for piece in self.pieces],
            "closing": closing,
        }
        await rows(self.worker.engine, _SETTLE, values)
        if publish:
            await self.worker.log.finish(self.stream, await self.frames())

    async def frames(self) -> list[WireFrame]:
        """Every frame, as the ledger tells it."""
        view = await load_turn(self.worker.engine, self.turn_id)
        assert view is not None
        return frames_of_view(view)


class Worker:
    """Reads turns from Kafka. Answers each at once, or hands them over to a test that plays by itself."""

    def __init__(self, bootstrap: str, engine: AsyncEngine, log: FrameLog, *, tenants: Sequence[str]) -> None:
        self.engine = engine
        self.log = log
        self.answering = False
        self.events: list[TurnSubmitted] = []
        self.headers: dict[str, dict[str, str]] = {}
        self._tenants = set(tenants)
        self._bootstrap = bootstrap
        self._arrived = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._consumer: Any = None

    async def start(self) -> None:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, fetch_max_wait_ms=10, auto_offset_reset="latest"
        )
        await self._consumer.start()
        partitions = await self._consumer._client._wait_on_metadata(TOPIC_TURNS)  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
        assigned = [TopicPartition(TOPIC_TURNS, p) for p in cast("set[int]", partitions)]
        self._consumer.assign(assigned)
        await self._consumer.seek_to_end(*assigned)
        for partition in assigned:
            await self._consumer.position(partition)
        self._task = asyncio.create_task(self._consume(), name="played-worker")

    async def stop(self) -> None:
        if self._task is not None:
            await end([self._task])
        await self._consumer.stop()

    async def take(self, turn_id: str) -> PlayedTurn:
        """Wait for a turn to arrive over Kafka and record it in the ledger."""
        return await self.record(await self.arrival(turn_id))

    async def arrival(self, turn_id: str) -> TurnSubmitted:
        """Wait for a turn to arrive over Kafka."""
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: any(e.turn_id == turn_id for e in self.events))
        return next(e for e in self.events if e.turn_id == turn_id)

    async def record(self, event: TurnSubmitted) -> PlayedTurn:
        """Write the turn into the ledger."""
        found = await row(
            self.engine,
            _RECORD,
            {
                "turn_id": event.turn_id,
                "tenant": event.tenant_id,
                "conversation": event.conversation_id,
                "channel": event.channel,
                "text": event.text,
                "metadata": json.dumps(event.metadata),
                "history": json.dumps([m.model_dump() for m in event.history]),
                "digest": event.body_sha256,
            },
        )
        assert found is not None
        info = TurnStreamInfo(TurnId(event.turn_id), event.conversation_id, found["created"])
        return PlayedTurn(self, event, info)

    async def answer(self, turn: PlayedTurn, *pieces: str) -> None:
        """Carry a turn from its lane to its end."""
        await turn.route()
        await turn.say(*(pieces or PIECES))
        await rows(self.engine, _ATTEMPT, {"turn_id": turn.turn_id})
        await turn.settle()

    async def _consume(self) -> None:
        async for record in self._consumer:
            event = TurnSubmitted.model_validate_json(record.value)
            if event.tenant_id not in self._tenants:
                continue
            self.headers[event.turn_id] = text_headers(record.headers)
            self.events.append(event)
            async with self._arrived:
                self._arrived.notify_all()
            if self.answering and await row(self.engine, _SEEN, {"turn_id": event.turn_id}) is None:
                await self.answer(await self.record(event))
