"""A whole gateway on real servers, and a worker to play with it."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
import pytest
import uvicorn
from pydantic import SecretStr

from infra.settings import Settings
from producers.gateway.app import create_app
from producers.gateway.parts import Parts
from producers.gateway.process import Server, compose, listening_socket, server_config
from tests.integration.gateway.waiting import until
from tests.integration.gateway.worker import Worker

ORIGIN = "https://shop.example.com"


@dataclass
class Gateway:
    """A gateway that listens, and everything a test needs to talk to it."""

    url: str
    parts: Parts
    server: uvicorn.Server
    tenant: str
    key: str
    operator_key: str
    other_key: str
    """A key of another tenant."""
    site_key: str
    http: httpx2.AsyncClient
    """Speaks with the tenant's key."""

    @property
    def ws_url(self) -> str:
        return self.url.replace("http://", "ws://")

    def bearer(self, token: str, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}", **more}

    async def submit(self, conversation: str = "c1", text: str = "hello", key: str | None = None) -> str:
        headers = {"Idempotency-Key": key} if key else {}
        response = await self.http.post(f"/v1/conversations/{conversation}/turns", json={"text": text}, headers=headers)
        assert response.status_code == 202, response.text
        turn_id: str = response.json()["turn_id"]
        return turn_id

    async def visitor_token(self, conversation: str | None = None) -> tuple[str, str]:
        """Return a widget token and its conversation."""
        body = {"site_key": self.site_key} | ({"conversation_id": conversation} if conversation else {})
        response = await self.http.post("/v1/widget/tokens", json=body, headers={"Origin": ORIGIN})
        assert response.status_code == 200, response.text
        return response.json()["token"], response.json()["conversation_id"]


def settings_for(kafka: str, redis: str, database: str) -> Settings:
    return Settings(
        kafka=kafka,
        redis=redis,
        database=SecretStr(database),
        widget_secret=SecretStr("w" * 32),
        key_pepper=SecretStr("pepper"),
        rate_limit_per_minute=100_000,
        gateway_port=0,
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[Gateway]:
    """Serve a gateway in this event loop."""
    async with compose(settings) as parts:
        tenant = f"acme-{uuid.uuid4().hex[:8]}"
        other = f"other-{uuid.uuid4().hex[:8]}"
        await parts.tenants.create(tenant, name="Acme")
        await parts.tenants.create(other, name="Other")
        listener = listening_socket("127.0.0.1", 0)
        server = Server(server_config(create_app(parts)), parts.draining)
        task = asyncio.create_task(server._serve([listener]), name="served")  # pyright: ignore[reportPrivateUsage]
        await until(lambda: server.started)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        key = await parts.tenants.create_key(tenant)
        async with httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20) as http:
            try:
                yield Gateway(
                    url=url,
                    parts=parts,
                    server=server,
                    tenant=tenant,
                    key=key,
                    operator_key=await parts.tenants.create_key(tenant, scopes=("turns", "operator")),
                    other_key=await parts.tenants.create_key(other),
                    site_key=await parts.tenants.create_site_key(tenant, origins=[ORIGIN]),
                    http=http,
                )
            finally:
                parts.draining.set()
                server.should_exit = True
                await task


@pytest.fixture
def gateway_settings(memory_kafka: str, redis_url: str, database_url: str) -> Settings:
    return settings_for(memory_kafka, redis_url, database_url)


@pytest.fixture
async def gateway(gateway_settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway on real servers."""
    async with running(gateway_settings) as served:
        yield served


@pytest.fixture
async def worker(gateway: Gateway, gateway_settings: Settings) -> AsyncIterator[Worker]:
    """A worker the test plays."""
    played = Worker(gateway_settings.kafka, gateway.parts.engine, gateway.parts.frames, tenants=[gateway.tenant])
    await played.start()
    yield played
    await played.stop()


@pytest.fixture
def answering(worker: Worker) -> Worker:
    """A worker that answers every turn by itself."""
    worker.answering = True
    return worker
