"""What a gateway does while a dependency is away, and that it recovers by itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy.engine import make_url

from infra.embedded.memory_kafka import MemoryKafka
from infra.embedded.redis import RedisServer
from infra.kafka.producer import EventProducer, NotAccepted
from infra.redis.frame_log import FramesUnavailable
from infra.settings import Settings
from producers.gateway.app import create_app
from producers.gateway.process import compose
from schemas.turns import TurnState
from tests.integration.gateway.conftest import Gateway, running, settings_for
from tests.integration.gateway.reading import told, watch
from tests.integration.gateway.test_websocket import close_code, frames_of, frames_until_end, receive, send, socket_of
from tests.integration.gateway.waiting import until
from tests.integration.gateway.worker import Worker
from tests.support.proxy import proxy

TURNS = "/v1/conversations/c1/turns"


@pytest.fixture
def own_kafka(state_directory: Path) -> Iterator[MemoryKafka]:
    server = MemoryKafka(state=state_directory / "kafka")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_redis(state_directory: Path) -> Iterator[RedisServer]:
    server = RedisServer(state=state_directory / "redis")
    server.start()
    yield server
    server.stop()


async def test_frozen_kafka_is_503_until_it_thaws(
    own_kafka: MemoryKafka, redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Kafka does not answer, turns are refused with a time to come back; afterwards they are taken again."""
    monkeypatch.setattr("infra.kafka.producer.SEND_SECONDS", 1.0)
    async with running(settings_for(own_kafka.address, redis_url, database_url)) as gateway:
        await gateway.submit(key="before")
        own_kafka.pause()
        try:
            response = await gateway.http.post(TURNS, json={"text": "a"}, headers={"Idempotency-Key": "k"})
            assert (response.status_code, response.json()["code"]) == (503, "not_accepted")
            assert int(response.headers["retry-after"]) >= 1
            await until(lambda: not gateway.parts.producer.ready)
            again = await gateway.http.post(TURNS, json={"text": "a"}, headers={"Idempotency-Key": "k"})
            assert again.status_code == 503
            ready = await gateway.http.get("/readyz")
            assert (ready.status_code, ready.json()["dependencies"]["kafka"]) == (503, "down")
            assert (await gateway.http.get("/healthz")).status_code == 200
        finally:
            own_kafka.resume()
        await until(lambda: gateway.parts.producer.ready, within=20)
        assert await gateway.submit(text="a", key="k")


async def test_gateway_starts_without_kafka(redis_url: str, database_url: str) -> None:
    """A broker that is not there when the gateway starts is no reason not to start."""
    async with running(settings_for("127.0.0.1:1", redis_url, database_url)) as gateway:
        response = await gateway.http.post(TURNS, json={"text": "a"})
        assert response.status_code == 503
        assert (await gateway.http.get("/readyz")).json()["dependencies"]["kafka"] == "down"


async def test_producer_connects_when_the_broker_comes(own_kafka: MemoryKafka) -> None:
    """A producer started against a silent broker is ready soon after the broker answers."""
    own_kafka.pause()
    producer = EventProducer(bootstrap=own_kafka.address, check_seconds=0.2)
    try:
        await producer.start()
        assert not producer.ready
        with pytest.raises(NotAccepted):
            await producer.send("test.topic", key=b"k", value=b"v", headers=[])
        own_kafka.resume()
        await until(lambda: producer.ready, within=20)
        await producer.send("test.topic", key=b"k", value=b"v", headers=[("name", b"value")])
    finally:
        await producer.stop()


async def test_producer_finds_a_broker_that_lost_everything(
    own_kafka: MemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer that hears nothing for long is built anew, so that it finds the bootstrap address again."""
    monkeypatch.setattr("infra.kafka.producer._REBUILD_AFTER_SECONDS", 0.5)
    producer = EventProducer(bootstrap=own_kafka.address, check_seconds=0.2)
    await producer.start()
    try:
        await producer.send("test.topic", key=b"k", value=b"v", headers=[])
        first = producer._producer  # pyright: ignore[reportPrivateUsage]
        own_kafka.pause()
        await until(lambda: producer._producer is not first, within=20)  # pyright: ignore[reportPrivateUsage]
        own_kafka.resume()
        await until(lambda: producer.ready, within=20)
        await producer.send("test.topic", key=b"k", value=b"v", headers=[])
    finally:
        own_kafka.resume()
        await producer.stop()


@pytest.fixture
async def lone(own_redis: RedisServer, memory_kafka: str, database_url: str) -> AsyncIterator[Gateway]:
    """A gateway whose Redis can be taken away."""
    async with running(settings_for(memory_kafka, own_redis.address, database_url)) as gateway:
        yield gateway


@pytest.fixture
async def lone_worker(lone: Gateway, memory_kafka: str) -> AsyncIterator[Worker]:
    worker = Worker(memory_kafka, lone.parts.engine, lone.parts.frames, tenants=[lone.tenant])
    await worker.start()
    yield worker
    await worker.stop()


async def test_without_redis_the_answer_comes_at_its_end(
    lone: Gateway, lone_worker: Worker, own_redis: RedisServer
) -> None:
    """Redis gone mid-stream: the rest of the answer is told from the ledger, nothing lost, nothing twice."""
    turn = await lone_worker.take(await lone.submit())
    await turn.route()
    await turn.say("one ")
    watching = asyncio.create_task(watch(lone.http, turn.turn_id))
    await until(lambda: lone.parts.hub.listeners == 1)
    own_redis.kill()
    turn.pieces += ["two ", "three"]
    await turn.settle(publish=False)
    assert told(await watching) == [frame.json for frame in await turn.frames()]


async def test_turn_born_without_redis_is_watched(lone: Gateway, lone_worker: Worker, own_redis: RedisServer) -> None:
    """A turn that begins and ends while Redis is away is accepted, answered and told."""
    own_redis.kill()
    await until(lambda: not lone.parts.hub.connected)
    turn_id = await lone.submit()
    watching = asyncio.create_task(watch(lone.http, turn_id))
    turn = await lone_worker.take(turn_id)
    await turn.settle(TurnState.BOUNDED, closing="<p>Sorry.</p>", publish=False)
    assert told(await watching) == [frame.json for frame in await turn.frames()]
    assert (await lone.http.get("/readyz")).json()["dependencies"]["redis"] == "down"


async def test_redis_that_comes_back_is_listened_to(lone: Gateway, lone_worker: Worker, own_redis: RedisServer) -> None:
    """After a restart of Redis, watchers hear live frames again without doing anything."""
    turn = await lone_worker.take(await lone.submit())
    await turn.route()
    watching = asyncio.create_task(watch(lone.http, turn.turn_id))
    await until(lambda: lone.parts.hub.listeners == 1)
    own_redis.restart()
    await until(lambda: lone.parts.hub.listeners == 1, within=20)
    await patiently(turn.route)
    await turn.say("one ", "two")
    await turn.settle()
    assert told(await watching) == [frame.json for frame in await turn.frames()]


async def patiently(call: Callable[[], Awaitable[None]]) -> None:
    """Call until it works: each pooled connection notices a restart by failing once."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await call()
            except FramesUnavailable:
                await asyncio.sleep(0.01)


async def test_frozen_redis_holds_nobody_up(lone: Gateway, lone_worker: Worker, own_redis: RedisServer) -> None:
    """A Redis that keeps connections and answers nothing costs seconds, not the stream."""
    turn = await lone_worker.take(await lone.submit())
    own_redis.pause()
    try:
        watching = asyncio.create_task(watch(lone.http, turn.turn_id))
        await turn.settle(TurnState.BOUNDED, closing="<p>Sorry.</p>", publish=False)
        assert told(await watching) == [frame.json for frame in await turn.frames()]
    finally:
        own_redis.resume()


async def test_gateway_starts_without_anything(state_directory: Path) -> None:
    """With every dependency away the gateway starts, says what it lacks, and refuses politely."""
    nowhere = "postgresql+asyncpg://nobody@127.0.0.1:1/none"
    settings: Settings = settings_for("127.0.0.1:1", "redis://127.0.0.1:1/0", nowhere)
    async with compose(settings) as parts:
        transport = ASGITransport(app=create_app(parts))
        async with AsyncClient(transport=transport, base_url="http://gateway") as http:
            ready = await http.get("/readyz")
            assert (ready.status_code, set(ready.json()["dependencies"].values())) == (503, {"down", "ok"})
            response = await http.get(
                "/v1/models", headers={"Authorization": "Bearer fl_live_" + "0" * 16 + "_" + "x" * 43}
            )
            assert (response.status_code, response.json()["error"]["code"]) == (503, "ledger_unavailable")


async def test_a_socket_outlives_a_ledger_that_is_away(
    memory_kafka: str, redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that cannot be looked at again for a while ends no socket; a new socket is told to come back."""
    monkeypatch.setattr("producers.gateway.websocket.RECHECK_SECONDS", 0.1)
    monkeypatch.setattr("infra.postgres.tenants.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("infra.postgres.tenants.STALE_SECONDS", 0.0)
    url = make_url(database_url)
    async with proxy("127.0.0.1", url.port or 0) as gate:
        through = url.set(port=gate.port).render_as_string(hide_password=False)
        async with running(settings_for(memory_kafka, redis_url, through)) as gateway, socket_of(gateway) as socket:
            await gate.close()
            await asyncio.sleep(1.5)
            await send(socket, type="ping")
            assert await receive(socket) == {"type": "pong"}

            async with socket_of(gateway, additional_headers={}) as late:
                await send(late, type="auth", token=gateway.key)
                assert await close_code(late) == 1013
            await gate.open()


async def test_a_socket_hears_of_turns_that_spoke_while_it_was_deaf(
    lone: Gateway, lone_worker: Worker, own_redis: RedisServer
) -> None:
    """A turn somebody else began and ended while Redis was away is told on every open socket of the conversation."""
    async with socket_of(lone) as socket:
        await until(lambda: lone.parts.hub.listeners == 1)
        own_redis.kill()
        await until(lambda: not lone.parts.hub.connected)
        turn = await lone_worker.take(await lone.submit())
        await turn.settle(TurnState.BOUNDED, closing="<p>Sorry.</p>", publish=False)
        own_redis.restart()

        assert await frames_until_end(socket) == await frames_of(turn)
