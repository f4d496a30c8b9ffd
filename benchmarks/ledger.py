"""Turns in the ledger, ready for a worker to take: the bench's stand-in for everything before a lane."""

import hashlib
import json
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.policy import load_policy
from infra.postgres.engine import create_engine
from infra.postgres.inbox import Inbound, Inbox
from infra.postgres.statements import row, rows
from schemas.events import TurnSubmitted
from schemas.ids import TurnId, turn_id_for
from schemas.names import TOPIC_TURNS
from schemas.policy import Deadlines

TENANT: Final = "bench"
_BATCH: Final = 50
_ACTOR: Final = "orchestrator@bench"
_PLAN: Final = {"agent": "discovery", "primary": "discovery-slm", "fallback": "frontier", "direct": False, "why": "-"}

_QUEUE = text("""
WITH queued AS (
    UPDATE turns SET state = 'queued', epoch = 1, agent = 'discovery', plan = CAST(:plan AS jsonb), hints = 1,
           head_at = clock_timestamp(), hinted_at = clock_timestamp()
    WHERE turn_id = ANY(CAST(:turns AS uuid[]))
    RETURNING turn_id
)
INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor)
SELECT turn_id, step[1], step[2], 1, :actor
FROM queued, (VALUES (ARRAY['received', 'preparing']), (ARRAY['preparing', 'queued'])) AS steps (step)
""")

_STAND = text("""
SELECT count(*) FILTER (WHERE done_at IS NULL)::int AS open,
       count(*) FILTER (WHERE state = 'answered' AND source = 'primary')::int AS answered,
       extract(epoch FROM max(done_at))::float AS last
FROM turns WHERE turn_id = ANY(CAST(:turns AS uuid[]))
""")


@dataclass(frozen=True, slots=True)
class Stand:
    """How some turns stand together."""

    open: int
    answered: int
    """By their first model."""
    last: float
    """When the last of them ended, in Unix seconds."""


class Ledger:
    """Writes turns down and looks how they stand."""

    def __init__(self, engine: AsyncEngine, *, deadlines: Deadlines | None = None) -> None:
        self._engine = engine
        self._inbox = Inbox(engine, deadlines=deadlines or load_policy().deadlines, actor=_ACTOR, history=0)
        self._offset = 0

    async def queued(self, count: int, message: str) -> list[TurnId]:
        """Write down so many first turns of conversations, each open to the lane of discovery."""
        turns: list[TurnId] = []
        for start in range(0, count, _BATCH):
            batch = [self._inbound(message) for _ in range(min(_BATCH, count - start))]
            await self._inbox.record(TOPIC_TURNS, batch)
            turns.extend(TurnId(item.event.turn_id) for item in batch)
        await rows(self._engine, _QUEUE, {"plan": json.dumps(_PLAN), "turns": turns, "actor": _ACTOR})
        return turns

    async def stand(self, turns: Sequence[TurnId]) -> Stand:
        """Return how these turns stand."""
        found = await row(self._engine, _STAND, {"turns": list(turns)})
        if found is None:
            raise RuntimeError("The ledger does not count.")
        return Stand(found["open"], found["answered"], found["last"] or 0.0)

    def _inbound(self, message: str) -> Inbound:
        name = uuid.uuid4().hex
        self._offset += 1
        event = TurnSubmitted(
            turn_id=turn_id_for(TENANT, name),
            tenant_id=TENANT,
            conversation_id=name,
            channel="bench",
            text=message,
            body_sha256=hashlib.sha256(message.encode()).hexdigest(),
        )
        return Inbound(event, 0, self._offset, None, value=event.model_dump_json().encode())


@asynccontextmanager
async def open_ledger(database: str, *, deadlines: Deadlines | None = None) -> AsyncGenerator[Ledger]:
    """Give the ledger of a database while the context lasts; it has a tenant for the bench.

    Args:
        database: `postgresql+asyncpg://…`.
        deadlines: of its turns; those of the policy unless given.
    """
    engine = create_engine(database, pool_size=2, name="fairlead-bench")
    try:
        await rows(
            engine,
            text("INSERT INTO tenants (tenant_id, name) VALUES (:t, 'Bench') ON CONFLICT DO NOTHING"),
            {"t": TENANT},
        )
        yield Ledger(engine, deadlines=deadlines)
    finally:
        await engine.dispose()
