"""A trace is carried from process to process, exported where a collector is."""

import asyncio
import json
import sys
import textwrap

import pytest
from aiohttp import web
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra.settings import Settings
from infra.telemetry.tracing import (
    CarryingTracerProvider,
    RedactingExporter,
    configure_tracing,
    context_from,
    current_traceparent,
    traceparent_of,
)

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_given_traceparent_passes_through_unchanged() -> None:
    """A process that records nothing hands on the caller's trace, span and sampling decision."""
    tracer = CarryingTracerProvider().get_tracer("test")
    with tracer.start_as_current_span("outer", context_from(GIVEN)), tracer.start_as_current_span("inner"):
        assert current_traceparent() == GIVEN
    assert current_traceparent() is None


def test_a_root_gets_ids_of_its_own() -> None:
    """Where no trace arrived a valid, unsampled one begins, and its children keep it."""
    tracer = CarryingTracerProvider().get_tracer("test")
    with tracer.start_as_current_span("root", context_from(None)):
        first = current_traceparent()
        with tracer.start_as_current_span("child"):
            assert current_traceparent() == first
    with tracer.start_as_current_span("other root", context_from(None)):
        assert current_traceparent() != first
    assert first is not None
    assert first.startswith("00-")
    assert first.endswith("-00")
    assert traceparent_of(context_from(first)) == first


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "",
        "garbage",
        "ff-" + GIVEN[3:],
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        GIVEN.upper(),
        GIVEN + "-extra",
        "x" * 5000,
    ],
)
def test_a_broken_traceparent_starts_anew(broken: str | None) -> None:
    """What is no traceparent is as good as none, and never an error."""
    assert traceparent_of(context_from(broken)) is None


def test_a_context_is_not_inherited_by_accident() -> None:
    """An absent traceparent means a new trace, even inside another span."""
    tracer = CarryingTracerProvider().get_tracer("test")
    with tracer.start_as_current_span("surrounding", context_from(GIVEN)):
        assert traceparent_of(context_from(None)) is None


def test_without_a_collector_nothing_needs_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an endpoint the carrying provider is installed and its shutdown returns at once."""
    installed: list[object] = []
    monkeypatch.setattr(trace, "set_tracer_provider", installed.append)
    shutdown = configure_tracing("test", Settings(otlp_endpoint=None))
    shutdown()
    assert [type(provider) for provider in installed] == [CarryingTracerProvider]


def test_spans_leave_redacted() -> None:
    """An exported span has no secret in attributes, events or status, and is otherwise the same span."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(RedactingExporter(kept)))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("chat frontier") as span:
        span.set_attribute("gen_ai.usage.input_tokens", 12)
        span.set_attribute("gen_ai.input.messages", "PLANTED")
        span.record_exception(ValueError("planted: Bearer PLANTED"))
        span.set_status(trace.StatusCode.ERROR, "ValueError: password=PLANTED")
    provider.shutdown()
    (exported,) = kept.get_finished_spans()
    assert "PLANTED" not in exported.to_json()
    assert exported.context == span.get_span_context()
    assert dict(exported.attributes or {})["gen_ai.usage.input_tokens"] == 12
    assert "planted: Bearer [redacted]" in exported.to_json()


class Collector:
    """An OTLP/HTTP collector on loopback: decodes what arrives."""

    def __init__(self) -> None:
        self.spans: dict[str, tuple[str, str, str]] = {}
        """Span name to service, trace id, parent's span id."""

    async def receive(self, request: web.Request) -> web.Response:
        """Take one export request."""
        batch = ExportTraceServiceRequest.FromString(await request.read())
        for resource in batch.resource_spans:
            named = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = (named["service.name"], span.trace_id.hex(), span.parent_span_id.hex())
                    self.spans[span.name] = ids
        return web.Response(content_type="application/x-protobuf")


_HOP = """
    import json, sys
    from infra.settings import Settings
    from infra.telemetry.tracing import configure_tracing, context_from, current_traceparent
    from opentelemetry import trace

    process, endpoint, incoming = sys.argv[1:]
    shutdown = configure_tracing(process, Settings(otlp_endpoint=endpoint))
    with trace.get_tracer("hop").start_as_current_span(f"work of {process}", context_from(incoming or None)):
        print(json.dumps(current_traceparent()))
    shutdown()
"""


async def _hop(process: str, endpoint: str, incoming: str) -> str:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(_HOP), process, endpoint, incoming, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0
    return json.loads(out)


async def test_two_processes_one_trace() -> None:
    """A real collector receives the spans of two processes under one trace id, the second below the first."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        first = await _hop("gateway", endpoint, "")
        second = await _hop("agents", endpoint + "/", first)
    finally:
        await runner.cleanup()
    trace_id, span_id = first.split("-")[1:3]
    assert second.split("-")[1] == trace_id
    assert collector.spans == {
        "work of gateway": ("fairlead-gateway", trace_id, ""),
        "work of agents": ("fairlead-agents", trace_id, span_id),
    }
