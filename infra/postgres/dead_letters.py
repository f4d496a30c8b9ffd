"""The index of dead letters that never became turns. Those of turns are written with their transitions."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import rows
from schemas.dead_letters import DeadLetterReason

_BURY = text("""
INSERT INTO dead_letters (reason, stage, error, kafka_topic, kafka_partition, kafka_offset)
VALUES (:reason, :stage, :error, :topic, :partition, :offset)
ON CONFLICT DO NOTHING
""")

_UNANSWERED = text("""
SELECT count(*) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float AS oldest
FROM dead_letters WHERE state = 'unanswered'
""")


@dataclass(frozen=True, slots=True)
class Grave:
    """A record that is no event, and where it stood."""

    reason: DeadLetterReason
    stage: str
    error: str
    topic: str
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
                "reason": grave.reason,
                "stage": grave.stage,
                "error": grave.error,
                "topic": grave.topic,
                "partition": grave.partition,
                "offset": grave.offset,
            },
        )

    async def unanswered(self) -> tuple[int, float]:
        """Return how many nobody has answered, and the age of the oldest in seconds."""
        [found] = await rows(self._engine, _UNANSWERED, {})
        return found["n"], found["oldest"]
