"""From Kafka into the ledger, on the in-memory broker and on Apache Kafka."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.kafka.consumer import EventConsumer
from infra.kafka.producer import EventProducer
from infra.policy import load_policy
from infra.postgres.dead_letters import DeadLetters
from infra.postgres.engine import create_engine
from infra.postgres.inbox import Inbox
from schemas.envelope import Envelope, Headers, now_rfc3339, text_headers
from schemas.events import TYPE_TURN_SUBMITTED, TurnSubmitted
from schemas.ids import TurnId, turn_id_for
from schemas.names import partition_key
from tests.support.kafka import everything_in
from tests.support.pipeline import until
from tests.support.proxy import proxy
from workers.orchestrator.intake import Intake

MakeTopic = Callable[[int], str]


def _event(conversation: str, message: str, *, key: str | None = None, tenant: str = "acme") -> TurnSubmitted:
    return TurnSubmitted(
        turn_id=turn_id_for(tenant, key or uuid.uuid4().hex),
        tenant_id=tenant,
        conversation_id=conversation,
        channel="test",
        text=message,
        body_sha256=hashlib.sha256(message.encode()).hexdigest(),
    )


def _headers(event: TurnSubmitted) -> Headers:
    return Envelope(
        id=str(uuid.uuid4()),
        type=TYPE_TURN_SUBMITTED,
        source="/test",
        subject=event.conversation_id,
        tenant=event.tenant_id,
        partition_key=partition_key(event.tenant_id, event.conversation_id),
        time=now_rfc3339(),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ).headers()


@dataclass
class Bench:
    """A topic, a ledger, and what an intake started."""

    kafka: str
    topic: str
    dead_letter_topic: str
    engine: AsyncEngine
    producer: EventProducer
    started: list[TurnId]

    async def send(self, event: TurnSubmitted) -> None:
        """Produce an event as the gateway does."""
        key = partition_key(event.tenant_id, event.conversation_id).encode()
        await self.producer.send(self.topic, key=key, value=event.model_dump_json().encode(), headers=_headers(event))

    async def query(self, statement: str) -> list[dict[str, object]]:
        """Run a query."""
        async with self.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(text(statement))).mappings()]

    async def take_in(self, enough: int, *, group: str, engine: AsyncEngine | None = None) -> int:
        """Run an intake of `group` until it has read `enough` records; returns how many it read."""
        # The topic makes the group this test's own: the in-memory broker is slow to take a group's next member.
        consumer = self.consumer(self.topic, f"{self.topic}.{group}")
        await consumer.start()
        intake = Intake(
            consumer=consumer,
            inbox=Inbox(
                engine or self.engine, deadlines=load_policy().deadlines, actor="orchestrator@test", history=10
            ),
            producer=self.producer,
            dead_letters=DeadLetters(engine or self.engine),
            start=self.started.append,
            topic=self.topic,
            dead_letter_topic=self.dead_letter_topic,
        )
        read = 0
        try:
            async with asyncio.timeout(40):
                while read < enough:
                    read += await intake.run_once(wait_ms=100)
        finally:
            await consumer.stop()
        return read

    def consumer(self, topic: str, group: str) -> EventConsumer:
        """Return a consumer of the product's own make."""
        return EventConsumer(bootstrap=self.kafka, topic=topic, group=group, client_id="test", fetch_max_wait_ms=10)


@asynccontextmanager
async def _bench(kafka: str, database_url: str, new_topic: MakeTopic) -> AsyncGenerator[Bench]:
    engine = create_engine(database_url)
    producer = EventProducer(bootstrap=kafka, client_id="test")
    await producer.start()
    await until(lambda: producer.ready, seconds=20)
    bench = Bench(kafka, new_topic(4), new_topic(1), engine, producer, [])
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO tenants (tenant_id, name) VALUES ('acme', 'Acme')"))
    try:
        yield bench
    finally:
        await producer.stop()
        await engine.dispose()


async def test_events_become_turns_in_the_order_of_each_conversation(
    kafka: str, database_url: str, new_topic: MakeTopic
) -> None:
    """60 events of 6 conversations are recorded once each, numbered 1 to 10, their traces kept, and started."""
    async with _bench(kafka, database_url, new_topic) as bench:
        events = [_event(f"c{n % 6}", f"message {n // 6}") for n in range(60)]
        for event in events:
            await bench.send(event)

        await bench.take_in(60, group="a")

        rows = await bench.query("SELECT conversation_id, seq, input_text, traceparent FROM turns ORDER BY 1, 2")
        assert [(r["conversation_id"], r["seq"], r["input_text"]) for r in rows] == [
            (f"c{c}", m + 1, f"message {m}") for c in range(6) for m in range(10)
        ]
        assert {str(r["traceparent"])[3:35] for r in rows} == {"0af7651916cd43dd8448eb211c80319c"}
        assert sorted(bench.started) == sorted(event.turn_id for event in events)


async def test_reading_the_topic_again_changes_nothing(kafka: str, database_url: str, new_topic: MakeTopic) -> None:
    """A full replay of the topic, and an event produced twice, add no turn and start none."""
    async with _bench(kafka, database_url, new_topic) as bench:
        events = [_event("c1", f"message {n}") for n in range(10)]
        for event in (*events, *events[:3]):
            await bench.send(event)
        await bench.take_in(13, group="a")
        started = list(bench.started)

        await bench.take_in(13, group="b")

        assert bench.started == started
        assert [r["seq"] for r in await bench.query("SELECT seq FROM turns ORDER BY seq")] == list(range(1, 11))
        assert await bench.query("SELECT 1 FROM dead_letters") == []


async def test_what_is_committed_is_not_read_again(kafka: str, database_url: str, new_topic: MakeTopic) -> None:
    """The next member of the group goes on behind the last committed record."""
    async with _bench(kafka, database_url, new_topic) as bench:
        for n in range(5):
            await bench.send(_event("c1", f"message {n}"))
        await bench.take_in(5, group="a")
        late = _event("c1", "late")
        await bench.send(late)

        assert await bench.take_in(1, group="a") == 1
        assert bench.started[-1] == late.turn_id


async def test_garbage_goes_to_the_dead_letters_whole_and_the_rest_goes_on(
    kafka: str, database_url: str, new_topic: MakeTopic
) -> None:
    """Every kind of unusable record is kept byte by byte with its reason, committed past, and blocks nothing."""
    async with _bench(kafka, database_url, new_topic) as bench:
        good, reused = _event("c1", "hello"), _event("c1", "one text", key="k")
        other = _event("c1", "another text", key="k")
        stranger = _event("c1", "hello", tenant="nobody")
        own = [("x-own", b"\xff\x00kept")]
        bad: list[tuple[bytes | None, bytes | None, Headers, str]] = [
            (b"acme:c1", b"not json", own, "undecodable"),
            (b"acme:c1", b"\xff\xfe\x00", own, "undecodable"),
            (b"acme:c1", None, own, "undecodable"),
            (None, b"", own, "undecodable"),
            (b"acme:c1", b"[1, 2]", own, "schema_violation"),
            (b"acme:c1", b'{"turn_id": 7}', own, "schema_violation"),
            (b"acme:c1", good.model_dump_json().encode().replace(b"hello", b"he\\u0000"), own, "schema_violation"),
            (b"acme:c2", good.model_dump_json().encode(), own, "schema_violation"),
            (b"acme:c1", good.model_dump_json().encode(), [("ce_type", b"other.v1")], "schema_violation"),
            (b"nobody:c1", stranger.model_dump_json().encode(), own, "unknown_tenant"),
        ]
        await bench.send(reused)
        for key, value, headers, _ in bad:
            await bench.producer.send(bench.topic, key=key, value=value, headers=headers)
        await bench.take_in(len(bad) + 1, group="a")
        await bench.send(other)
        await bench.send(good)

        await bench.take_in(2, group="a")

        assert sorted(bench.started) == sorted([TurnId(reused.turn_id), TurnId(good.turn_id)])
        letters = await everything_in(bench.kafka, bench.dead_letter_topic, len(bad) + 1)
        seen = {(r.key, r.value, text_headers(r.headers)["dlq-error-type"]) for r in letters}
        expected = {(key, value, reason) for key, value, _, reason in bad}
        assert expected | {(b"acme:c1", other.model_dump_json().encode(), "conflict")} == seen
        for record in letters:
            told = text_headers(record.headers)
            assert told["dlq-original-topic"] == bench.topic
            assert int(told["dlq-original-offset"]) >= 0
            assert "hello" not in told["dlq-exception-message"]
        assert sum(("x-own", b"\xff\x00kept") in [tuple(h) for h in r.headers] for r in letters) == len(bad) - 1
        index = await bench.query("SELECT reason, count(*)::int AS n FROM dead_letters GROUP BY 1 ORDER BY 1")
        assert {str(r["reason"]): r["n"] for r in index} == {
            "conflict": 1,
            "schema_violation": 5,
            "undecodable": 4,
            "unknown_tenant": 1,
        }


async def test_what_ledger_or_dead_letter_topic_cannot_hold_blocks_nothing(
    kafka: str, database_url: str, new_topic: MakeTopic
) -> None:
    """A value PostgreSQL has no form for, or a record too large to copy, is indexed; the next one is read."""
    async with _bench(kafka, database_url, new_topic) as bench:
        good = _event("c1", "hello")
        body = good.model_dump_json().encode()
        strange: list[tuple[bytes, Headers]] = [
            (body.replace(b'"metadata":{}', b'"metadata":{"a":"\\u0000"}'), []),
            (body.replace(b'"metadata":{}', b'"metadata":{"a":1e999}'), []),
            (body.replace(b'"metadata":{}', b'"metadata":{"a":NaN}'), []),
            (b"x" * 1_048_400, []),
        ]
        for value, headers in strange:
            assert value != body
            await bench.producer.send(bench.topic, key=b"acme:c1", value=value, headers=headers)
        odd_headers = cast("Headers", [("empty", None), ("traceparent", b"00-\x00-\xff")])
        await bench.producer.send(bench.topic, key=b"acme:c1", value=body, headers=odd_headers)

        await bench.take_in(len(strange) + 1, group="a")

        assert bench.started == [TurnId(good.turn_id)]
        index = await bench.query("SELECT reason FROM dead_letters")
        assert len(index) == len(strange)


async def test_a_value_the_ledger_refuses_costs_its_own_record_only(
    kafka: str, database_url: str, new_topic: MakeTopic
) -> None:
    """A batch with a row PostgreSQL will never take is recorded without it; that one is a dead letter."""
    async with _bench(kafka, database_url, new_topic) as bench:
        # Stands for a rule of the ledger that our own checks do not know.
        async with bench.engine.connect() as connection:
            await connection.execute(
                text(
                    "ALTER TABLE turns ADD COLUMN checked int GENERATED ALWAYS AS (1 / (length(input_text) - 3)) STORED"
                )
            )
        events = [_event("c1", "hello"), _event("c1", "bad"), _event("c1", "once more")]
        for event in events:
            await bench.send(event)

        await bench.take_in(3, group="a")

        turns = await bench.query("SELECT turn_id::text FROM turns ORDER BY seq")
        assert [turn["turn_id"] for turn in turns] == [events[0].turn_id, events[2].turn_id]
        assert [r["reason"] for r in await bench.query("SELECT reason FROM dead_letters")] == ["schema_violation"]


async def test_two_messages_under_one_key_in_one_batch_are_a_turn_and_a_dead_letter(
    kafka: str, database_url: str, new_topic: MakeTopic
) -> None:
    """The second message of a key is not lost in silence, even when both were accepted while PostgreSQL was away."""
    async with _bench(kafka, database_url, new_topic) as bench:
        first, other = _event("c1", "one text", key="k"), _event("c1", "another text", key="k")
        for event in (first, other, first):
            await bench.send(event)

        await bench.take_in(3, group="a")

        [turn] = await bench.query("SELECT input_text FROM turns")
        assert turn["input_text"] == "one text"
        assert [r["reason"] for r in await bench.query("SELECT reason FROM dead_letters")] == ["conflict"]


async def test_while_postgresql_is_away_nothing_is_committed_and_nothing_lost(
    kafka: str, database_url: str, new_topic: MakeTopic
) -> None:
    """Intake waits for the ledger; when it is back, the waiting batch is recorded once."""
    url = make_url(database_url)
    async with _bench(kafka, database_url, new_topic) as bench, proxy("127.0.0.1", url.port or 0) as gate:
        through = create_engine(url.set(port=gate.port).render_as_string(hide_password=False))
        for n in range(5):
            await bench.send(_event("c1", f"message {n}"))
        await gate.close()

        taking = asyncio.create_task(bench.take_in(5, group="a", engine=through))
        await asyncio.sleep(2)
        assert not taking.done()
        assert await bench.query("SELECT 1 FROM turns") == []
        await gate.open()
        await taking

        assert len(await bench.query("SELECT 1 FROM turns")) == 5
        assert len(bench.started) == 5
        await through.dispose()
