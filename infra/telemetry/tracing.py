"""One trace from the visitor's request to the settled turn.

With a collector configured, the OpenTelemetry SDK records and exports. Without one nothing is recorded, but
the context still travels: a `traceparent` that a request brings is carried on unchanged, and a request that
brings none gets ids of its own (flags 00, not sampled), so that log lines and model servers can be matched.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, NoOpTracer, Span, SpanContext, TraceFlags, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.status import Status
from opentelemetry.util.types import Attributes, AttributeValue

from infra.settings import Settings
from infra.telemetry.redaction import mask, redact_item

Shutdown = Callable[[], None]
"""Sends what is still held and stops. Blocks for at most a few seconds."""

_EXPORT_SECONDS: Final = 3.0
_HEADER: Final = "traceparent"
_PROPAGATOR: Final = TraceContextTextMapPropagator()


def configure_tracing(process: str, settings: Settings) -> Shutdown:
    """Install this process's tracer provider, once; return how to stop it.

    Everything else uses the OpenTelemetry API: `trace.get_tracer(__name__).start_as_current_span(...)`.
    """
    if settings.otlp_endpoint is None:
        trace.set_tracer_provider(CarryingTracerProvider())
        return _nothing_to_stop
    provider = TracerProvider(
        resource=Resource.create({"service.namespace": "fairlead", "service.name": f"fairlead-{process}"}),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint.rstrip("/") + "/v1/traces", timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(RedactingExporter(exporter), schedule_delay_millis=1000))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def current_traceparent() -> str | None:
    """Return the `traceparent` to send along from here, or None outside any trace."""
    return _inject(None)


def traceparent_of(context: Context) -> str | None:
    """Return the `traceparent` that names the span of `context`."""
    return _inject(context)


def context_from(traceparent: str | None) -> Context:
    """Return the context that `traceparent` names, or an empty one, where a trace begins, if there is none."""
    return _PROPAGATOR.extract({} if traceparent is None else {_HEADER: traceparent}, Context())


def _inject(context: Context | None) -> str | None:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context)
    return carrier.get(_HEADER)


def _nothing_to_stop() -> None:
    """Stop a provider that holds nothing."""


class CarryingTracerProvider(trace.TracerProvider):
    """Records nothing and keeps the context whole. The API's own no-op provider makes no ids at a root."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        """Return the one tracer there is."""
        return _CARRYING_TRACER


class _CarryingTracer(NoOpTracer):
    def __init__(self) -> None:
        self._ids = RandomIdGenerator()

    def start_span(self, name: str, context: Context | None = None, *args: object, **kwargs: object) -> Span:
        """Return the parent's own context, or a new one where there is no parent.

        A span that nobody records must not become a parent: who records further on would point to nothing.
        """
        parent = trace.get_current_span(context).get_span_context()
        if parent.is_valid:
            return NonRecordingSpan(parent)
        return NonRecordingSpan(
            SpanContext(
                trace_id=self._ids.generate_trace_id(),
                span_id=self._ids.generate_span_id(),
                is_remote=False,
                trace_flags=TraceFlags(TraceFlags.DEFAULT),
            )
        )


_CARRYING_TRACER: Final = _CarryingTracer()


class RedactingExporter(SpanExporter):
    """Hands spans on without anybody's words: attributes and exception messages pass the nets of the logs."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export redacted copies."""
        return self._inner.export([_redacted(span) for span in spans])

    def shutdown(self) -> None:
        """Stop the exporter inside."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter inside."""
        return self._inner.force_flush(timeout_millis)


def _redacted(span: ReadableSpan) -> ReadableSpan:
    description = span.status.description
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_safe(span.attributes),
        events=[Event(event.name, _safe(event.attributes), event.timestamp) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, mask(description) if description else None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _safe(attributes: Attributes) -> Mapping[str, AttributeValue]:
    plain = {key: _safe_value(key, value) for key, value in (attributes or {}).items()}
    return cast("Mapping[str, AttributeValue]", plain)


def _safe_value(key: str, value: object) -> object:
    if key == "exception.message" and isinstance(value, str):
        return mask(value)
    return redact_item(key, value)
