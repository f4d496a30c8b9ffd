"""One trace over every process a turn passes."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cli.system import running_system
from tests.support.pipeline import until

from .conftest import bare_environment

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET = "the launch is on the ninth"


class _Collector:
    """An OTLP/HTTP collector that keeps what it receives."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str]] = []
        """(service, span name, trace id)."""
        self.raw = b""

    async def receive(self, request: web.Request) -> web.Response:
        """Decode one export."""
        body = await request.read()
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            [service] = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
            for scope in resource.scope_spans:
                self.spans += [(service, span.name, span.trace_id.hex()) for span in scope.spans]
        return web.Response()

    def services(self, trace: str) -> set[str]:
        """Return the processes that took part in a trace."""
        return {service for service, _, found in self.spans if found == trace}


@contextmanager
def _collecting() -> Generator[tuple[_Collector, str]]:
    """Run a collector in a thread of its own: starting a system blocks this one."""
    collector, loop, address = _Collector(), asyncio.new_event_loop(), list[str]()
    started = threading.Event()

    async def serve() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/traces", collector.receive)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.append(str(site.name))
        started.set()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    try:
        yield collector, address[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def test_a_turn_is_one_trace_from_the_request_to_the_model(state_directory: Path) -> None:
    """The trace holds spans of gateway, orchestrator and agent; neither span nor log holds the message."""
    with _collecting() as (collector, address):
        environ = {**bare_environment(), "FAIRLEAD_OTLP_ENDPOINT": address}
        with running_system(state_directory / "traced", environ=environ) as system:
            found = system.endpoints
            headers = {
                "Authorization": f"Bearer {found.api_key}",
                "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
            }
            async with aiohttp.ClientSession(found.gateway, headers=headers) as client:
                async with client.post("/v1/conversations/traced/turns", json={"text": SECRET}) as answer:
                    turn = (await answer.json())["turn_id"]
                async with client.get(f"/v1/turns/{turn}/events") as events:
                    await events.read()

            await until(lambda: len(collector.services(TRACE)) >= 3, seconds=30)

    services = {service.split("-")[1] for service in collector.services(TRACE)}
    assert services >= {"gateway", "orchestrator", "agents"}
    names = {name for _, name, trace in collector.spans if trace == TRACE}
    assert {"send fairlead.turns", "prepare turn", "answer discovery"} <= names
    assert any(name.startswith("chat ") for name in names)
    assert SECRET.encode() not in collector.raw
    log = await asyncio.to_thread(system.log.read_text)
    assert "turn_settled" in log
    for kept_out in (SECRET, found.api_key, found.operator_key, found.database):
        assert kept_out not in log
