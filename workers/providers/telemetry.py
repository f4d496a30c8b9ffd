"""One span for each model call, in the words of OpenTelemetry's GenAI conventions. No text is captured."""

import time
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.completions import CompletionRequest, Finish, ProviderError

_PROPAGATOR: Final = TraceContextTextMapPropagator()
"""Trace context alone: baggage may hold what a model server has no business to know."""


class CallSpan:
    """The span of one call, from the request to its last item."""

    def __init__(self, request: CompletionRequest, *, provider: str) -> None:
        self._started = time.perf_counter()
        self._first = True
        self._finished = False
        model = request.adapter or request.model
        self._span: Span = trace.get_tracer("fairlead.providers").start_span(
            f"chat {model}",
            context=_parent(request),
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": provider,
                "gen_ai.request.model": model,
                "gen_ai.request.stream": True,
                "gen_ai.request.max_tokens": request.max_tokens,
                "gen_ai.request.temperature": request.temperature,
                "fairlead.turn.id": request.turn_id,
                "fairlead.attempt": request.ordinal,
            },
        )

    def headers(self) -> dict[str, str]:
        """Return `traceparent` and `tracestate` for the server, where there is a trace."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self._span, Context()))
        return carrier

    def saw(self, item: object) -> None:
        """Note the first content, and what a finish tells."""
        if self._first:
            self._first = False
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", time.perf_counter() - self._started)
        if isinstance(item, Finish):
            self._finished = True
            self._span.set_attribute("gen_ai.response.finish_reasons", (item.reason,))
            if item.input_tokens is not None:
                self._span.set_attribute("gen_ai.usage.input_tokens", item.input_tokens)
            if item.output_tokens is not None:
                self._span.set_attribute("gen_ai.usage.output_tokens", item.output_tokens)

    def failed(self, error: ProviderError) -> None:
        """Mark the call as failed; our errors hold nobody's words, so the message may be seen."""
        self._span.set_attribute("error.type", error.code)
        self._span.set_status(Status(StatusCode.ERROR, str(error)))

    def abandoned(self) -> None:
        """Mark the call as left by its consumer, if that was before the end."""
        if not self._finished:
            self._span.set_attribute("error.type", "cancelled")

    def end(self) -> None:
        """End the span."""
        self._span.end()


def _parent(request: CompletionRequest) -> Context | None:
    """Return the context of the turn's own trace if the request names one, else None for the current one."""
    if request.traceparent is None:
        return None
    return _PROPAGATOR.extract({"traceparent": request.traceparent})
