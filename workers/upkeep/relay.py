"""The outbox, to Kafka. A record is marked only when Kafka has it, so it may go twice, with the same `ce_id`."""

import asyncio
from typing import Final

from structlog import get_logger

from infra.crash_points import reach
from infra.kafka.producer import EventProducer, NotAccepted
from infra.postgres.outbox import Outbox, OutboxRecord

log = get_logger(__name__)

BATCH: Final = 200


class Relay:
    """Publishes what transactions left behind, in order of writing for each key."""

    def __init__(self, *, outbox: Outbox, producer: EventProducer) -> None:
        self._outbox = outbox
        self._producer = producer

    async def run_once(self) -> int:
        """Publish the oldest records; returns how many Kafka took.

        Raises:
            LedgerUnavailable: nothing is lost; try again.
        """
        async with self._outbox.batch(BATCH) as (records, mark):
            published = await self._publish(records)
            if published:
                reach("outbox_after_send")
            await mark(published)
            return len(published)

    async def _publish(self, records: list[OutboxRecord]) -> list[OutboxRecord]:
        taken = await asyncio.gather(*(self._send(record) for record in records))
        published: list[OutboxRecord] = []
        held_keys: set[bytes | None] = set()
        for record, ok in zip(records, taken, strict=True):
            # Behind a refused record its conversation waits, so that results keep their order.
            if ok and record.key not in held_keys:
                published.append(record)
            else:
                held_keys.add(record.key)
        return published

    async def _send(self, record: OutboxRecord) -> bool:
        try:
            await self._producer.send(record.topic, key=record.key, value=record.value, headers=record.headers)
        except NotAccepted as error:
            log.warning("result_not_published", outbox_id=record.outbox_id, error=str(error))
            return False
        return True
