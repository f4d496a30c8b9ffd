"""What must reach Kafka after a transaction: written in it, published from here, in order of writing."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

from sqlalchemy import RowMapping, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.headers import pairs
from infra.postgres.statements import LedgerUnavailable, rows
from schemas.envelope import Headers

_ONE_RELAY = text("SELECT pg_try_advisory_xact_lock(:key) AS got")
_TAKE = text("""
SELECT outbox_id, topic, key, original_headers, headers, value FROM outbox
WHERE published_at IS NULL ORDER BY outbox_id LIMIT :batch
""")
_MARK = text("UPDATE outbox SET published_at = clock_timestamp() WHERE outbox_id = ANY(CAST(:ids AS bigint[]))")
_WAITING = text("""
SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float AS oldest
FROM outbox WHERE published_at IS NULL
""")

_LOCK: Final = 0x4F_55_54_42
"""One relay at a time, so that the results of a conversation keep their order."""


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """One record that waits for Kafka."""

    outbox_id: int
    topic: str
    key: bytes | None
    headers: Headers
    value: bytes


Mark = Callable[[Sequence[OutboxRecord]], Awaitable[None]]


class Outbox:
    """Taking records and marking them published."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._transactional = engine.execution_options(isolation_level="READ COMMITTED")

    @asynccontextmanager
    async def batch(self, limit: int) -> AsyncGenerator[tuple[list[OutboxRecord], Mark]]:
        """Give the oldest unpublished records and how to mark those Kafka took; none while another relay runs.

        Raises:
            LedgerUnavailable: PostgreSQL does not answer; records may be published again later.
        """
        try:
            async with self._transactional.begin() as connection:
                records: list[OutboxRecord] = []
                if (await connection.execute(_ONE_RELAY, {"key": _LOCK})).scalar_one():
                    found = (await connection.execute(_TAKE, {"batch": limit})).mappings().all()
                    records = [_record(r) for r in found]

                async def mark(published: Sequence[OutboxRecord]) -> None:
                    if published:
                        await connection.execute(_MARK, {"ids": [record.outbox_id for record in published]})

                yield records, mark
        except (DBAPIError, PoolTimeout, OSError, TimeoutError) as error:
            raise LedgerUnavailable(f"PostgreSQL does not answer: {type(error).__name__}") from error

    async def waiting(self) -> tuple[int, float]:
        """Return how many records wait, and the age of the oldest in seconds."""
        [found] = await rows(self._engine, _WAITING, {})
        return found["waiting"], found["oldest"]


def _record(r: RowMapping) -> OutboxRecord:
    ours = cast("list[tuple[str, str]]", r["headers"])
    headers = [*pairs(r["original_headers"]), *((name, value.encode()) for name, value in ours)]
    return OutboxRecord(r["outbox_id"], r["topic"], r["key"], headers, r["value"])
