"""From Kafka into the ledger: fetch, decode, record, start, bury what is no event, commit."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from structlog import get_logger

from infra.kafka.consumer import Batch, EventConsumer, Record
from infra.kafka.producer import EventProducer, NotAccepted
from infra.postgres.dead_letters import DeadLetters, Grave
from infra.postgres.inbox import Inbound, Inbox, Recorded
from infra.postgres.statements import LedgerUnavailable
from infra.telemetry import metrics
from schemas.dead_letters import (
    H_CONSUMER_GROUP,
    H_ERROR_MESSAGE,
    H_ERROR_TYPE,
    H_FAILED_AT,
    H_ORIGINAL_OFFSET,
    H_ORIGINAL_PARTITION,
    H_ORIGINAL_TIMESTAMP,
    H_ORIGINAL_TOPIC,
    H_SERVICE,
    H_STAGE,
    DeadLetterReason,
)
from schemas.envelope import Headers, now_rfc3339
from schemas.ids import TurnId
from schemas.names import GROUP_ORCHESTRATOR, TOPIC_DEAD_LETTERS, TOPIC_TURNS
from workers.orchestrator.decode import Undecodable, decode

log = get_logger(__name__)

BATCH: Final = 200
RETRY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Refused:
    record: Record
    why: Undecodable


class Intake:
    """One consumer's way into the ledger.

    Args:
        consumer: where records come from.
        inbox: where turns are written down.
        producer: takes dead letters.
        dead_letters: their index.
        start: called with each new turn, in order; must not block.
        topic: the topic the consumer reads.
        dead_letter_topic: where what is no event goes.
    """

    def __init__(
        self,
        *,
        consumer: EventConsumer,
        inbox: Inbox,
        producer: EventProducer,
        dead_letters: DeadLetters,
        start: Callable[[TurnId], None],
        topic: str = TOPIC_TURNS,
        dead_letter_topic: str = TOPIC_DEAD_LETTERS,
    ) -> None:
        self._consumer = consumer
        self._inbox = inbox
        self._producer = producer
        self._dead_letters = dead_letters
        self._start = start
        self._topic = topic
        self._dead_letter_topic = dead_letter_topic

    async def run_once(self, *, wait_ms: int = 500) -> int:
        """Take one batch in; returns how many records it had.

        Raises:
            ConsumerBroken: build a new consumer; nothing uncommitted is lost.
        """
        batch = await self._consumer.fetch(wait_ms=wait_ms, limit=BATCH)
        if not batch:
            return 0
        events, refused = self.decode(batch)
        recorded = await self.record(events)
        self.start(recorded)
        await self.bury([*refused, *_refused_by_ledger(batch, recorded)])
        await self._consumer.commit(batch)
        return sum(map(len, batch.values()))

    def decode(self, batch: Batch) -> tuple[list[Inbound], list[_Refused]]:
        """Tell events from what is none, in order."""
        events: list[Inbound] = []
        refused: list[_Refused] = []
        for record in (record for records in batch.values() for record in records):
            decoded = decode(record.key, record.value, record.headers)
            if isinstance(decoded, Undecodable):
                refused.append(_Refused(record, decoded))
            else:
                event, trace = decoded
                events.append(Inbound(event, record.partition, record.offset, trace))
        return events, refused

    async def record(self, events: Sequence[Inbound]) -> list[Recorded]:
        """Write the batch down; while PostgreSQL is away, intake waits and Kafka keeps everything."""
        while events:
            try:
                return await self._inbox.record(self._topic, events)
            except LedgerUnavailable as error:
                log.warning("intake_waits", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
        return []

    def start(self, recorded: Sequence[Recorded]) -> None:
        """Start what is new. It is in the ledger, so nobody has to wait for the commit."""
        for item in recorded:
            if item.inserted:
                self._start(TurnId(item.inbound.event.turn_id))

    async def bury(self, refused: Sequence[_Refused]) -> None:
        """Send what is no event to the dead-letter topic, whole; only then may its offset be committed."""
        waiting = list(refused)
        while waiting:
            if await self._buried(waiting[0]):
                waiting.pop(0)
            else:
                await asyncio.sleep(RETRY_SECONDS)

    async def _buried(self, item: _Refused) -> bool:
        record, why = item.record, item.why
        try:
            headers = _dead_letter_headers(item)
            await self._producer.send(self._dead_letter_topic, key=record.key, value=record.value, headers=headers)
            await self._dead_letters.bury(
                Grave(why.reason, "decode", why.error, record.topic, record.partition, record.offset)
            )
        except (NotAccepted, LedgerUnavailable) as error:
            log.warning("dead_letter_waits", error=str(error))
            return False
        metrics.DEAD_LETTERS.labels(why.reason.value).inc()
        log.warning("dead_letter", reason=why.reason.value, error=why.error, offset=record.offset)
        return True


def _refused_by_ledger(batch: Batch, recorded: Sequence[Recorded]) -> list[_Refused]:
    bad = {
        (item.inbound.partition, item.inbound.offset): item for item in recorded if item.unknown_tenant or item.conflict
    }
    if not bad:
        return []
    found: list[_Refused] = []
    for record in (record for records in batch.values() for record in records):
        item = bad.get((record.partition, record.offset))
        if item is not None:
            why = (
                Undecodable(DeadLetterReason.UNKNOWN_TENANT, "no such tenant")
                if item.unknown_tenant
                else Undecodable(DeadLetterReason.CONFLICT, "this turn id is known with another message")
            )
            found.append(_Refused(record, why))
    return found


def _dead_letter_headers(item: _Refused) -> Headers:
    record = item.record
    ours = {
        H_ORIGINAL_TOPIC: record.topic,
        H_ORIGINAL_PARTITION: str(record.partition),
        H_ORIGINAL_OFFSET: str(record.offset),
        H_ORIGINAL_TIMESTAMP: str(record.timestamp),
        H_CONSUMER_GROUP: GROUP_ORCHESTRATOR,
        H_SERVICE: "orchestrator",
        H_STAGE: "decode",
        H_ERROR_TYPE: item.why.reason.value,
        H_ERROR_MESSAGE: item.why.error,
        H_FAILED_AT: now_rfc3339(),
    }
    return [*record.headers, *((name, value.encode()) for name, value in ours.items())]
