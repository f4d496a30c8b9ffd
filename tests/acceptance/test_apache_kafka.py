"""The whole system on a given, real Apache Kafka: the same product code, one setting apart."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import text

from cli.system import RunningSystem, running_system
from infra.embedded.apache_kafka import ApacheKafka
from infra.postgres.engine import create_engine
from tests.support.pipeline import until

from .conftest import bare_environment

pytestmark = pytest.mark.apache_kafka


@pytest.fixture
def own_kafka(apache_installed: None, state_directory: Path) -> Iterator[ApacheKafka]:
    """An Apache Kafka of the test's own, to take away."""
    del apache_installed
    server = ApacheKafka(state=state_directory / "kafka")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def on_apache(own_kafka: ApacheKafka, state_directory: Path) -> Iterator[RunningSystem]:
    """A whole system that was given the broker's address."""
    environ = {**bare_environment(), "FAIRLEAD_KAFKA": own_kafka.address}
    with running_system(state_directory / "system", environ=environ) as system:
        yield system


async def _say(client: aiohttp.ClientSession, conversation: str, line: str) -> str:
    async with client.post(f"/v1/conversations/{conversation}/turns", json={"text": line}) as answer:
        assert answer.status == 202, await answer.text()
        turn = str((await answer.json())["turn_id"])
    async with client.get(f"/v1/turns/{turn}/events") as events:
        body = (await events.read()).decode()
    assert body.endswith("data: [DONE]\n\n")
    return turn


async def test_turns_survive_the_orchestrator_and_the_broker(on_apache: RunningSystem, own_kafka: ApacheKafka) -> None:
    """Turns are answered, results published; a killed orchestrator and a restarted broker cost time, not turns."""
    found = on_apache.endpoints
    conversation = f"c-{uuid.uuid4().hex[:8]}"
    headers = {"Authorization": f"Bearer {found.api_key}"}
    timeout = aiohttp.ClientTimeout(total=90)
    async with aiohttp.ClientSession(found.gateway, headers=headers, timeout=timeout) as client:
        await _say(client, conversation, "Hello there")

        on_apache.kill("orchestrator")
        await _say(client, conversation, "We count stock by hand")

        own_kafka.kill()
        refused = await _refusal(client, conversation)
        assert (refused.status, refused.headers["Retry-After"].isdigit()) == (503, True)
        await asyncio.to_thread(own_kafka.restart)
        await until(lambda: _ready(client), seconds=60)
        await _say(client, conversation, "About forty people")

    engine = create_engine(found.database)
    async with engine.connect() as connection:
        states = [row.state for row in await connection.execute(text("SELECT state FROM turns ORDER BY seq"))]

        async def published() -> bool:
            waiting = await connection.execute(text("SELECT count(*) FROM outbox WHERE published_at IS NULL"))
            return waiting.scalar_one() == 0

        await until(published, seconds=30)
    await engine.dispose()
    assert states == ["answered"] * 3


async def _refusal(client: aiohttp.ClientSession, conversation: str) -> aiohttp.ClientResponse:
    async with client.post(f"/v1/conversations/{conversation}/turns", json={"text": "Are you there?"}) as answer:
        await answer.read()
        return answer


async def _ready(client: aiohttp.ClientSession) -> bool:
    async with client.get("/readyz") as answer:
        return answer.status == 200
