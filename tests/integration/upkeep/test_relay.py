"""Results reach Kafka after the transaction that made them true."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from infra.kafka.producer import EventProducer
from infra.postgres.engine import create_engine
from infra.postgres.outbox import Outbox
from infra.postgres.statements import LedgerUnavailable
from schemas.envelope import text_headers
from tests.support.kafka import everything_in
from tests.support.pipeline import until
from workers.upkeep.relay import Relay

MakeTopic = Callable[[int], str]

_INSERT = text("""
INSERT INTO outbox (topic, key, headers, value) VALUES (:topic, :key, '[["ce_id", "1"], ["ce_type", "t"]]', :value)
""")


async def test_the_outbox_reaches_kafka_once_and_in_order(kafka: str, database_url: str, new_topic: MakeTopic) -> None:
    """Two relays at once publish every row once, each conversation in order, with its headers, and mark it."""
    topic = new_topic(4)
    engine = create_engine(database_url)
    producer = EventProducer(bootstrap=kafka, client_id="test")
    await producer.start()
    await until(lambda: producer.ready, seconds=20)
    async with engine.connect() as connection:
        for n in range(250):
            values = {"topic": topic, "key": f"acme:c{n % 5}".encode(), "value": str(n).encode()}
            await connection.execute(_INSERT, values)
    relays = [Relay(outbox=Outbox(engine), producer=producer) for _ in range(2)]

    async def drain(relay: Relay) -> int:
        total = 0
        async with asyncio.timeout(30):
            while (await Outbox(engine).waiting())[0]:
                total += await relay.run_once()
        return total

    assert sum(await asyncio.gather(*map(drain, relays))) == 250

    records = await everything_in(kafka, topic, 250)
    assert len(records) == 250
    for c in range(5):
        values = [int(r.value or b"") for r in records if r.key == f"acme:c{c}".encode()]
        assert values == list(range(c, 250, 5))
    assert text_headers(records[0].headers) == {"ce_id": "1", "ce_type": "t"}
    await producer.stop()
    await engine.dispose()


async def test_without_kafka_the_outbox_keeps_everything(database_url: str) -> None:
    """What Kafka does not take stays unpublished, and the relay says so without failing."""
    engine = create_engine(database_url)
    producer = EventProducer(bootstrap="127.0.0.1:1", client_id="test")
    await producer.start()
    async with engine.connect() as connection:
        await connection.execute(_INSERT, {"topic": "t", "key": b"k", "value": b"v"})

    assert await Relay(outbox=Outbox(engine), producer=producer).run_once() == 0

    waiting, oldest = await Outbox(engine).waiting()
    assert waiting == 1
    assert oldest >= 0
    await producer.stop()
    await engine.dispose()


async def test_without_postgresql_the_relay_asks_to_be_tried_again(database_url: str) -> None:
    """A ledger that does not answer is our own error, for the loop to wait on."""
    gone = create_engine(make_url(database_url).set(port=1).render_as_string(hide_password=False))
    producer = EventProducer(bootstrap="127.0.0.1:1", client_id="test")

    with pytest.raises(LedgerUnavailable):
        await Relay(outbox=Outbox(gone), producer=producer).run_once()
    await gone.dispose()
