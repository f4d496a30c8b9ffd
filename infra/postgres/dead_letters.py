"""The index of dead letters: records that never became turns, and where copies are; `letters` has those of turns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.headers import byte_array, flat
from infra.postgres.statements import rows
from schemas.dead_letters import DeadLetterReason
from schemas.ids import dead_letter_id

MAX_KEPT_BYTES: Final = 262_144
"""A larger record is only where it came from: its dead letter says where."""

# Whose it is, says the key, and only where there is such a tenant.
_BURY = text("""
WITH letter AS (
    INSERT INTO dead_letters (dead_letter_id, tenant_id, reason, stage, error, kafka_topic, kafka_partition,
                              kafka_offset)
    VALUES (CAST(:id AS uuid), (SELECT tenant_id FROM tenants WHERE tenant_id = :tenant), :reason, :stage, :error,
            :topic, :partition, :offset)
    ON CONFLICT DO NOTHING
    RETURNING dead_letter_id
)
INSERT INTO dead_records (dead_letter_id, key, value, headers)
SELECT dead_letter_id, CAST(:key AS bytea), CAST(:value AS bytea), CAST(CAST(:headers AS text) AS bytea[]) FROM letter
WHERE :kept
""")

_PLACED = text("""
UPDATE dead_letters l SET copy_partition = p.copy_partition, copy_offset = p.copy_offset
FROM unnest(CAST(:ids AS uuid[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]))
     AS p(dead_letter_id, copy_partition, copy_offset)
WHERE l.dead_letter_id = p.dead_letter_id
""")

_UNANSWERED = text("""
SELECT count(*) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float AS oldest
FROM dead_letters WHERE state = 'unanswered'
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grave:
    """A record that is no event, and where it stood."""

    reason: DeadLetterReason
    stage: str
    error: str
    topic: str
    partition: int
    offset: int
    key: bytes | None = field(default=None, repr=False)
    value: bytes | None = field(default=None, repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(default=(), repr=False)

    @property
    def tenant(self) -> str:
        """The tenant that its key names, if it is a key of ours."""
        return (self.key or b"").partition(b":")[0].decode("ascii", "ignore").replace("\x00", "")

    @property
    def size(self) -> int:
        """Bytes."""
        parts = [self.key, self.value, *flat(self.headers)]
        return sum(len(part) for part in parts if part)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the copy of a dead letter is on its topic."""

    dead_letter_id: str
    partition: int
    offset: int


class DeadLetters:
    """Writing the index."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def bury(self, grave: Grave) -> None:
        """Index one record; again changes nothing.

        Raises:
            LedgerUnavailable: ask again before committing past the record.
        """
        await rows(
            self._engine,
            _BURY,
            {
                "id": dead_letter_id(grave.topic, grave.partition, grave.offset),
                "tenant": grave.tenant,
                "reason": grave.reason,
                "stage": grave.stage,
                "error": grave.error,
                "topic": grave.topic,
                "partition": grave.partition,
                "offset": grave.offset,
                "key": grave.key,
                "value": grave.value,
                "headers": byte_array(flat(grave.headers)),
                "kept": grave.size <= MAX_KEPT_BYTES,
            },
        )

    async def place(self, copies: Sequence[Placed]) -> None:
        """Note where copies are on the dead-letter topic; a letter that is not known is left out.

        Raises:
            LedgerUnavailable: ask again before committing past them.
        """
        await rows(
            self._engine,
            _PLACED,
            {
                "ids": [copy.dead_letter_id for copy in copies],
                "partitions": [copy.partition for copy in copies],
                "offsets": [copy.offset for copy in copies],
            },
        )

    async def unanswered(self) -> tuple[int, float]:
        """Return how many nobody has answered, and the age of the oldest in seconds."""
        [found] = await rows(self._engine, _UNANSWERED, {})
        return found["n"], found["oldest"]
