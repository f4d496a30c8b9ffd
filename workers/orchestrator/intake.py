"""From Kafka into the ledger: fetch, decode, record, start, bury what is no event, commit."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from structlog import get_logger

from infra.crash_points import reach
from infra.kafka.consumer import Batch, EventConsumer, Record
from infra.kafka.producer import EventProducer, NotAccepted, TooLarge
from infra.postgres.dead_letters import DeadLetters, Grave
from infra.postgres.inbox import Inbound, Inbox, Recorded
from infra.postgres.statements import LedgerRefuses, LedgerUnavailable
from infra.telemetry import metrics
from schemas.dead_letters import (
    H_ATTEMPTS,
    H_CONSUMER_GROUP,
    H_ERROR_MESSAGE,
    H_ERROR_TYPE,
    H_FAILED_AT,
    H_FIRST_FAILED_AT,
    H_ID,
    H_ORIGINAL_OFFSET,
    H_ORIGINAL_PARTITION,
    H_ORIGINAL_TIMESTAMP,
    H_ORIGINAL_TOPIC,
    H_REPLAY_COUNT,
    H_SERVICE,
    H_STAGE,
    DeadLetterReason,
)
from schemas.envelope import Headers, now_rfc3339
from schemas.events import TurnSubmitted
from schemas.ids import TurnId, dead_letter_id
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
        recorded, unfit = await self.record(events)
        reach("after_ledger_before_commit")
        self.start(recorded)
        await self.bury([*refused, *_refused_by_ledger(batch, recorded, unfit)])
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
                events.append(_inbound(record, event, trace))
        return events, refused

    async def record(self, events: Sequence[Inbound]) -> tuple[list[Recorded], list[Inbound]]:
        """Write the batch down; returns also what the ledger will never take.

        While PostgreSQL is away, intake waits and Kafka keeps everything. A batch with a row it refuses is written
        down one by one, so that one bad record costs nobody else.
        """
        while events:
            try:
                return await self._inbox.record(self._topic, events), []
            except LedgerUnavailable as error:
                log.warning("intake_waits", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except LedgerRefuses as error:
                if len(events) == 1:
                    log.error("event_refused", turn_id=events[0].event.turn_id, error=str(error))
                    return [], list(events)
                return await self._record_singly(events)
        return [], []

    async def _record_singly(self, events: Sequence[Inbound]) -> tuple[list[Recorded], list[Inbound]]:
        recorded: list[Recorded] = []
        unfit: list[Inbound] = []
        for event in events:
            one, refused = await self.record([event])
            recorded += one
            unfit += refused
        return recorded, unfit

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

    async def _copied(self, item: _Refused) -> Undecodable:
        """Copy the record to the dead-letter topic; returns why it is there, or that it is only in its own topic."""
        record, headers = item.record, _dead_letter_headers(item)
        try:
            await self._producer.send(self._dead_letter_topic, key=record.key, value=record.value, headers=headers)
        except TooLarge:
            return replace(item.why, error=f"{item.why.error}; too large to copy, read it at its offset")
        return item.why

    async def _buried(self, item: _Refused) -> bool:
        record = item.record
        try:
            why = await self._copied(item)
            await self._dead_letters.bury(_grave(record, why))
        except (NotAccepted, LedgerUnavailable) as error:
            log.warning("dead_letter_waits", error=str(error))
            return False
        metrics.DEAD_LETTERS.labels(why.reason.value).inc()
        log.warning("dead_letter", reason=why.reason.value, error=why.error, offset=record.offset)
        return True


def _inbound(record: Record, event: TurnSubmitted, trace: str | None) -> Inbound:
    return Inbound(
        event,
        record.partition,
        record.offset,
        trace,
        value=record.value or b"",
        headers=tuple(record.headers),
        timestamp=record.timestamp,
    )


def _refused_by_ledger(batch: Batch, recorded: Sequence[Recorded], unfit: Sequence[Inbound]) -> list[_Refused]:
    bad = {(item.inbound.partition, item.inbound.offset): _why(item) for item in recorded if _is_refused(item)}
    for inbound in unfit:
        bad[inbound.partition, inbound.offset] = Undecodable(
            DeadLetterReason.SCHEMA_VIOLATION, "the ledger has no form for one of its values"
        )
    if not bad:
        return []
    found: list[_Refused] = []
    for record in (record for records in batch.values() for record in records):
        why = bad.get((record.partition, record.offset))
        if why is not None:
            found.append(_Refused(record, why))
    return found


def _grave(record: Record, why: Undecodable) -> Grave:
    return Grave(
        reason=why.reason,
        stage="decode",
        error=why.error,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )


def _is_refused(item: Recorded) -> bool:
    return item.unknown_tenant or item.conflict


def _why(item: Recorded) -> Undecodable:
    if item.unknown_tenant:
        return Undecodable(DeadLetterReason.UNKNOWN_TENANT, "no such tenant")
    return Undecodable(DeadLetterReason.CONFLICT, "this turn id is known with another message")


def _dead_letter_headers(item: _Refused) -> Headers:
    record = item.record
    now = now_rfc3339()
    ours = {
        H_ID: dead_letter_id(record.topic, record.partition, record.offset),
        H_ORIGINAL_TOPIC: record.topic,
        H_ORIGINAL_PARTITION: str(record.partition),
        H_ORIGINAL_OFFSET: str(record.offset),
        H_ORIGINAL_TIMESTAMP: str(record.timestamp),
        H_CONSUMER_GROUP: GROUP_ORCHESTRATOR,
        H_SERVICE: "orchestrator",
        H_STAGE: "decode",
        H_ERROR_TYPE: item.why.reason.value,
        H_ERROR_MESSAGE: item.why.error,
        H_ATTEMPTS: "0",
        H_FIRST_FAILED_AT: now,
        H_FAILED_AT: now,
        H_REPLAY_COUNT: "0",
    }
    return [*record.headers, *((name, value.encode()) for name, value in ours.items())]
