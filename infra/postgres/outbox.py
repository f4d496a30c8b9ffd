"""What must reach Kafka after a transaction: written in it, published from here, in order of writing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import Headers

_TAKE = text("""
SELECT outbox_id, topic, key, headers, value FROM outbox WHERE published_at IS NULL
ORDER BY outbox_id LIMIT :batch FOR UPDATE SKIP LOCKED
""")
_MARK = text("UPDATE outbox SET published_at = clock_timestamp() WHERE outbox_id = ANY(CAST(:ids AS bigint[]))")
_ONE_RELAY = text("SELECT pg_try_advisory_xact_lock(:key) AS got")
_LOCK = 0x4F_55_54_42


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """One record that waits for Kafka."""

    outbox_id: int
    topic: str
    key: bytes | None
    headers: Headers
    value: bytes


class Outbox:
    """Taking records under a lock and marking them published, one relay at a time so that order holds."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="READ COMMITTED")

    async def take(self, connection: AsyncConnection, batch: int) -> Sequence[OutboxRecord]:
        """Return the oldest unpublished records, locked until the transaction ends; none if another relay runs."""
        got = (await connection.execute(_ONE_RELAY, {"key": _LOCK})).scalar_one()
        if not got:
            return []
        found = (await connection.execute(_TAKE, {"batch": batch})).mappings().all()
        return [
            OutboxRecord(
                outbox_id=r["outbox_id"],
                topic=r["topic"],
                key=r["key"],
                headers=[
                    (name, value.encode()) for name, value in cast("list[tuple[str, str]]", json.loads(r["headers"]))
                ],
                value=r["value"],
            )
            for r in found
        ]

    async def mark(self, connection: AsyncConnection, published: Sequence[OutboxRecord]) -> None:
        """Mark records as accepted by Kafka."""
        await connection.execute(_MARK, {"ids": [record.outbox_id for record in published]})

    def transaction(self) -> "AsyncEngine":
        """Return the engine whose `begin()` opens the relay's transaction."""
        return self._engine
