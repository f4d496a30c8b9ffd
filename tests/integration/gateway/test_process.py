"""The gateway as a process of its own: it starts, serves, and stops in order."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2

from infra.postgres.engine import create_engine
from infra.postgres.tenants import Tenants
from infra.settings import Settings
from producers.gateway.process import listening_socket

PROGRAM = "from infra.settings import Settings; from producers.gateway.process import run; run(Settings())"


@asynccontextmanager
async def process_of(settings: Settings) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    """Run a gateway and wait until it is ready."""
    with listening_socket("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "FAIRLEAD_KAFKA": settings.kafka,
        "FAIRLEAD_REDIS": settings.redis,
        "FAIRLEAD_DATABASE": settings.database.get_secret_value(),
        "FAIRLEAD_KEY_PEPPER": settings.key_pepper.get_secret_value(),
        "FAIRLEAD_GATEWAY_PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-W", "error", "-c", PROGRAM, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(30), httpx2.AsyncClient(base_url=url) as http:
            while True:
                try:
                    if (await http.get("/readyz")).status_code == 200:
                        break
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.05)
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_sigterm_lets_streams_go_and_exits_cleanly(gateway_settings: Settings) -> None:
    """Told to stop with a stream open, the process ends it so that the client comes back, and exits with 0."""
    engine = create_engine(gateway_settings.database.get_secret_value())
    tenants = Tenants(engine, pepper=gateway_settings.key_pepper)
    await tenants.create("acme", name="Acme")
    headers = {"Authorization": f"Bearer {await tenants.create_key('acme')}"}
    async with process_of(gateway_settings) as (process, url):
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=20) as http:
            accepted = await http.post("/v1/conversations/c1/turns", json={"text": "hi"})
            assert accepted.status_code == 202
            async with http.stream("GET", accepted.json()["events_url"]) as response:
                assert response.status_code == 200
                process.send_signal(signal.SIGTERM)
                lines = [line async for line in response.aiter_lines()]
        assert ": reconnect" in lines
        assert "data: [DONE]" not in lines
        assert await asyncio.wait_for(process.wait(), 10) == 0
    await engine.dispose()
