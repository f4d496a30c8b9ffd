"""One model call, from its first byte to its end, as the visitor may see it."""

import math
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from infra.crash_points import reach
from infra.telemetry import metrics
from schemas.completions import CompletionRequest, Delta, Finish, Malformed, Provider, ProviderError
from schemas.outcomes import Answer, Answered, AttemptEnding, FailedUnseen, LeaseLost, Source, Truncated
from workers.answers.extract import FieldScanner, MalformedAnswer
from workers.answers.sanitise import HtmlStream
from workers.answers.writer import FrameWriter
from workers.guardrails.links import LinkRule, no_link

_MAX_LABEL: Final = 64

Show = Callable[[str], Awaitable[bool]]
"""Shows safe HTML; passes the commit point first if this is the first of it. False: the turn is not ours any more."""


@dataclass(slots=True)
class _Reading:
    """The state of one stream: raw JSON in, safe HTML out."""

    html: HtmlStream
    scanner: FieldScanner = field(default_factory=FieldScanner)
    logprobs: list[float] = field(default_factory=list[float])
    finish: Finish | None = None

    def feed(self, item: Delta | Finish) -> str:
        """Return what became visible with `item`."""
        if isinstance(item, Finish):
            self.finish = item
            return ""
        text = self.scanner.feed(item.text)
        if not self.scanner.started:
            self.logprobs.extend(item.logprobs)
        return self.html.feed(text)

    def close(self) -> str:
        """Check that the output is whole and return what was held back.

        Raises:
            MalformedAnswer: it is not the JSON object it was constrained to be.
        """
        self.scanner.finish()
        return self.html.finish()

    @property
    def confidence(self) -> float | None:
        """exp(mean log-probability) of the tokens decided before any visible text."""
        return math.exp(sum(self.logprobs) / len(self.logprobs)) if self.logprobs else None


async def run_attempt(
    provider: Provider,
    request: CompletionRequest,
    writer: FrameWriter,
    show: Show,
    source: Source,
    links: LinkRule = no_link,
) -> AttemptEnding:
    """Stream one completion to the visitor.

    A failure is told apart by the commit point: before the first visible byte another attempt may follow,
    after it the text stays and the turn is truncated.
    """
    reading = _Reading(HtmlStream(links=links))
    error: ProviderError
    asked: float | None = time.monotonic()
    try:
        async with aclosing(provider.stream(request)) as stream:
            async for item in stream:
                if asked is not None:
                    metrics.MODEL_FIRST_TOKEN.labels(request.model, str(request.ordinal)).observe(
                        time.monotonic() - asked
                    )
                    asked = None
                if (shown := reading.feed(item)) and not await show(shown):
                    return LeaseLost()
        if (shown := reading.close()) and not await show(shown):
            return LeaseLost()
        if writer.started:
            writer.finish()
            reach("after_eos")
            return Answered(_answer(reading, writer, request, source))
        error = Malformed("the model's answer has no visible text")
    except MalformedAnswer as malformed:
        error = Malformed(str(malformed))
    except ProviderError as failed:
        error = failed
    if not writer.started or writer.silent:
        return FailedUnseen(error)
    return Truncated(_answer(reading, writer, request, source), reading.html.closers(), error)


def _label(text: str | None) -> str | None:
    """Return what the model called the answer as the ledger can hold it: nobody checked that it kept to its schema."""
    return None if text is None else text.replace("\x00", "")[:_MAX_LABEL]


def _answer(reading: _Reading, writer: FrameWriter, request: CompletionRequest, source: Source) -> Answer:
    return Answer(
        html=writer.content,
        cuts=writer.cuts,
        dimension=_label(reading.scanner.fields.get("dimension")),
        source=source,
        ordinal=request.ordinal,
        model=request.model,
        input_tokens=reading.finish.input_tokens if reading.finish else None,
        output_tokens=reading.finish.output_tokens if reading.finish else None,
        confidence=reading.confidence,
    )
