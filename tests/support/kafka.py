"""Reading a topic as a test needs it."""

import asyncio
import uuid

from infra.kafka.consumer import EventConsumer, Record


async def everything_in(kafka: str, topic: str, enough: int) -> list[Record]:
    """Read a topic from its start until `enough` records came."""
    consumer = EventConsumer(
        bootstrap=kafka, topic=topic, group=uuid.uuid4().hex, client_id="test", fetch_max_wait_ms=10
    )
    await consumer.start()
    records: list[Record] = []
    try:
        async with asyncio.timeout(40):
            while len(records) < enough:
                batch = await consumer.fetch(wait_ms=100, limit=500)
                records.extend(record for some in batch.values() for record in some)
    finally:
        await consumer.stop()
    return records
