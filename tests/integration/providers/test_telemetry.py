"""The span of a model call."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from schemas.completions import Overloaded
from simulators.testing import SimulatorHandle
from tests.integration.providers.conftest import Kind, Way, way_to
from tests.integration.providers.support import HEAD, TURN, asking, raw_server
from tests.integration.providers.test_wires import finish, token, writes

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
SECRET = "the visitor's own words"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What the calls of one test recorded."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def _only(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans.get_finished_spans()
    return span


async def test_a_whole_call(way: Way, spans: InMemorySpanExporter) -> None:
    """A call is one client span in the conventions' words, with usage and finish and nobody's text."""
    _ = [item async for item in way.provider.stream(way.asking(said=SECRET))]
    span = _only(spans)
    told = dict(span.attributes or {})
    assert span.name == f"chat {way.adapter or way.model}"
    assert span.kind is SpanKind.CLIENT
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == way.provider.name
    assert told["gen_ai.request.model"] == (way.adapter or way.model)
    assert told["gen_ai.response.finish_reasons"] in {("stop",), ("eos_token",)}
    assert isinstance(told["gen_ai.usage.input_tokens"], int)
    assert isinstance(told["gen_ai.usage.output_tokens"], int)
    assert isinstance(told["gen_ai.response.time_to_first_chunk"], float)
    assert told["fairlead.turn.id"] == TURN
    assert SECRET not in repr(told)
    assert not span.events


async def test_a_failed_call(way: Way, simulator: SimulatorHandle, spans: InMemorySpanExporter) -> None:
    """A failed call's span has the error's code and its sentence."""
    simulator.control(fault="status", status=429)
    with pytest.raises(Overloaded):
        _ = [item async for item in way.provider.stream(way.asking(said=SECRET))]
    span = _only(spans)
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "overloaded"
    assert SECRET not in span.to_json()


async def test_an_abandoned_call(way: Way, simulator: SimulatorHandle, spans: InMemorySpanExporter) -> None:
    """A call its consumer left is marked as cancelled; one left after its finish is not."""
    simulator.control(fault="hang", after_tokens=3, times=1)
    for _ in range(2):
        stream = way.provider.stream(way.asking())
        async for item in stream:
            if simulator.requests()[-1]["outcome"] == "hang" or not hasattr(item, "text"):
                break
        await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - a generator, wider than its port
    types = [dict(span.attributes or {}).get("error.type") for span in spans.get_finished_spans()]
    assert types == ["cancelled", None]


async def test_traceparent(kind: Kind, spans: InMemorySpanExporter) -> None:
    """The server gets this call's own span as the parent, in the turn's trace."""
    async with raw_server(writes(HEAD + token(kind, "Hi") + finish(kind))) as server, way_to(kind, server.url) as way:
        request = asking(way.model, way.adapter, traceparent=PARENT)
        _ = [item async for item in way.provider.stream(request)]
    span = _only(spans)
    assert span.context is not None
    assert span.parent is not None
    assert format(span.context.trace_id, "032x") == TRACE
    assert format(span.parent.span_id, "016x") == "b7ad6b7169203331"
    sent = f"traceparent: 00-{TRACE}-{span.context.span_id:016x}-01"
    assert sent.encode() in server.requests[0].lower()


async def test_traceparent_without_an_sdk(kind: Kind) -> None:
    """Where nothing records, the turn's own trace still reaches the server."""
    async with raw_server(writes(HEAD + token(kind, "Hi") + finish(kind))) as server, way_to(kind, server.url) as way:
        request = asking(way.model, way.adapter, traceparent=PARENT)
        _ = [item async for item in way.provider.stream(request)]
    assert f"traceparent: {PARENT}".encode() in server.requests[0].lower()
