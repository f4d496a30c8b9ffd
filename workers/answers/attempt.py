"""One model call, from its first byte to its end, as the visitor may see it."""

import math
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, cast

import jiter
from pydantic import JsonValue

from infra.crash_points import reach
from infra.telemetry import metrics
from schemas.citations import NOTHING_READ
from schemas.completions import CompletionRequest, Delta, Finish, Malformed, Provider, ProviderError
from schemas.outcomes import Answer, Answered, AttemptEnding, FailedUnseen, LeaseLost, Source, Truncated
from workers.answers.extract import FieldScanner, MalformedAnswer
from workers.answers.sanitise import HtmlStream
from workers.answers.terms import Terms
from workers.answers.writer import FrameWriter
from workers.guardrails.links import LinkRule, no_link

_MAX_LABEL: Final = 64

Show = Callable[[str], Awaitable[bool]]
"""Shows safe HTML; passes the commit point first if this is the first of it. False: the turn is not ours any more."""


@dataclass(slots=True)
class _Reading:
    """The state of one stream: raw JSON in, safe HTML out, kept to the terms."""

    html: HtmlStream
    terms: Terms | None = None
    scanner: FieldScanner = field(default_factory=FieldScanner)
    logprobs: list[float] = field(default_factory=list[float])
    finish: Finish | None = None
    whole: dict[str, object] = field(default_factory=dict[str, object])
    _begun: bool = False
    _held: list[str] = field(default_factory=list[str])

    def feed(self, item: Delta | Finish) -> str:
        """Return what became visible with `item`."""
        if isinstance(item, Finish):
            self.finish = item
            return ""
        text = self.scanner.feed(item.text)
        if not self.scanner.started:
            self.logprobs.extend(item.logprobs)
            return ""
        if self.terms is not None:
            if not self._begun:
                self._begun = True
                self.terms.begin(_decided(self.scanner))
            self.terms.see(text)
        return self._released(self.html.feed(text))

    def close(self) -> str:
        """Check that the output is whole and return what was held back, with what we add to it.

        Raises:
            MalformedAnswer: it is not the JSON object it was constrained to be.
            Malformed: it does not keep to the terms.
        """
        self.whole = self.scanner.finish()
        if self.terms is None:
            return self.html.finish()
        self.terms.end(self.scanner.text)
        shown = "".join(self._held) + self.html.finish()
        self._held.clear()
        return shown + self.terms.closing()

    def _released(self, shown: str) -> str:
        if self.terms is None or not self.terms.hold:
            return shown
        self._held.append(shown)
        return ""

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
    terms: Terms | None = None,
) -> AttemptEnding:
    """Stream one completion to the visitor.

    A failure is told apart by the commit point: before the first visible byte another attempt may follow,
    after it the text stays and the turn is truncated.
    """
    reading = _Reading(HtmlStream(links=links), terms)
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


def _decided(scanner: FieldScanner) -> dict[str, JsonValue]:
    """Return the fields that were complete before the visible text began."""
    try:
        found = cast("dict[str, JsonValue]", jiter.from_json(scanner.raw.encode(), partial_mode=True))
    except ValueError:  # raw control characters or half characters, which the scanner lets pass
        return {**scanner.fields}
    return dict(takewhile(lambda item: item[0] != scanner.field, found.items()))


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
        read=reading.terms.read if reading.terms else NOTHING_READ,
        diagram=cast("JsonValue", reading.whole.get("diagram")),
    )
