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
from workers.answers.gate import ConfidenceGate, Token, decision_tokens
from workers.answers.guard import Guard, Rules
from workers.answers.sanitise import HtmlStream, to_text
from workers.answers.terms import Terms
from workers.answers.writer import FrameWriter
from workers.guardrails.links import LinkRule, no_link

_MAX_LABEL: Final = 64
_PATIENCE: Final = 400
"""Characters a model may go on after its answer has ended; then its stream is closed."""

Show = Callable[[str], Awaitable[bool]]
"""Shows safe HTML; passes the commit point first if this is the first of it. False: the turn is not ours any more."""


@dataclass(slots=True)
class _Reading:
    """The state of one stream: raw JSON in, what may be shown out."""

    guard: Guard
    gate: ConfidenceGate | None
    terms: Terms | None
    html: HtmlStream
    scanner: FieldScanner = field(default_factory=FieldScanner)
    tokens: list[Token] = field(default_factory=list[Token])
    confidence: float | None = None
    finish: Finish | None = None
    whole: dict[str, object] = field(default_factory=dict[str, object])
    _decided: bool = False
    _wasted: int = 0
    _visible: bool = False
    _held: str = ""

    def feed(self, item: Delta | Finish) -> str:
        """Return what may be shown now that `item` came.

        Raises:
            ProviderError: what came must not be shown.
        """
        if isinstance(item, Finish):
            self.finish = item
            return ""
        if self.guard.ended:
            self._wasted += len(item.text)
        if not self._decided:
            self.tokens.extend(zip(item.tokens, item.logprobs, strict=False))
        text = self.scanner.feed(item.text)
        if not self.scanner.started:
            return ""
        shown = "" if self._decided else self._decide()
        if self.terms is not None:
            self.terms.see(text)
        return self._released(shown + self.guard.feed(text, self.html.feed(text)))

    def _decide(self) -> str:
        self._decided = True
        logprobs = decision_tokens(self.tokens)
        if logprobs:
            self.confidence = math.exp(sum(logprobs) / len(logprobs))
        shown = self.guard.decide(self.scanner.fields, self.scanner.raw)
        if self.gate is not None and not self.guard.ended and (found := self.gate.judge(logprobs)) is not None:
            self.confidence = found
        if self.terms is not None:
            self.terms.begin(_decided(self.scanner))
        return shown

    def close(self) -> str:
        """Check that the output is whole and return what was held back, with what we add to it.

        Raises:
            MalformedAnswer: it is not the JSON object it was constrained to be.
            ProviderError: what was held back must not be shown.
        """
        shown = ""
        if not self.guard.ended:
            self.whole = self.scanner.finish()
            if self.terms is not None:
                self.terms.end(self.scanner.text)
            shown = self._released(self.guard.finish(self.html.finish()))
        return shown + (self.terms.closing() if self.terms is not None else "")

    def _released(self, shown: str) -> str:
        """Return what may be shown. Tags and white space wait for a character: without one nobody has seen anything."""
        self._held += shown
        self._visible = self._visible or bool(to_text(self._held).strip())
        if not self._visible:
            return ""
        released, self._held = self._held, ""
        return released

    @property
    def enough(self) -> bool:
        """Whether the answer is whole and the model goes on and on."""
        return self._wasted > _PATIENCE


async def run_attempt(
    provider: Provider,
    request: CompletionRequest,
    writer: FrameWriter,
    show: Show,
    source: Source,
    *,
    links: LinkRule = no_link,
    terms: Terms | None = None,
    rules: Rules | None = None,
    gate: ConfidenceGate | None = None,
) -> AttemptEnding:
    """Stream one completion to the visitor.

    A failure is told apart by the commit point: before the first visible byte another attempt may follow, after it the
    text stays and the turn is truncated. What fails after the answer has ended fails nothing.

    Args:
        provider: who is asked.
        request: what is asked.
        writer: what the turn shows.
        show: shows it.
        source: who answers, for the ledger.
        links: which links of the answer stay.
        terms: what the text is judged by as a whole, and what we add to it; nothing without.
        rules: what the answer has to keep to; its JSON shape alone without.
        gate: judges the decision; every one passes without.
    """
    reading = _Reading(Guard(rules or Rules("none")), gate, terms, HtmlStream(links=links))
    error: ProviderError | None = None
    try:
        if not await _streamed(provider, request, reading, show):
            return LeaseLost()
    except MalformedAnswer as malformed:
        error = Malformed(str(malformed))
        if (shown := reading.guard.instead()) and not await show(shown):
            return LeaseLost()
    except ProviderError as failed:
        error = failed
    if writer.started and (error is None or reading.guard.ended):
        writer.finish()
        reach("after_eos")
        return Answered(_answer(reading, writer, request, source))
    error = error or Malformed("the model's answer has no visible text")
    if not writer.started or writer.silent:
        return FailedUnseen(error)
    closing = reading.guard.closing()
    return Truncated(_answer(reading, writer, request, source), closing, error)


async def _streamed(provider: Provider, request: CompletionRequest, reading: _Reading, show: Show) -> bool:
    """Show what comes, to the end of the stream. False: the turn is not ours any more."""
    asked: float | None = time.monotonic()
    async with aclosing(provider.stream(request)) as stream:
        async for item in stream:
            if asked is not None:
                waited = time.monotonic() - asked
                metrics.MODEL_FIRST_TOKEN.labels(request.model, str(request.ordinal)).observe(waited)
                asked = None
            if (shown := reading.feed(item)) and not await show(shown):
                return False
            if reading.enough:
                break
    shown = reading.close()
    return not shown or await show(shown)


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
        dimension=_label(reading.guard.dimension),
        source=source,
        ordinal=request.ordinal,
        model=request.model,
        input_tokens=reading.finish.input_tokens if reading.finish else None,
        output_tokens=reading.finish.output_tokens if reading.finish else None,
        confidence=reading.confidence,
        mended=reading.guard.conclude(),
        read=reading.terms.read if reading.terms is not None else NOTHING_READ,
        diagram=cast("JsonValue", reading.whole.get("diagram")),
    )
