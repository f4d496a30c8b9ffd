"""How the work on a turn can end. Expected endings are values; `settle` must handle each."""

from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from schemas.citations import NOTHING_READ, Read
from schemas.completions import ProviderError
from schemas.dead_letters import DeadLetterReason

Source = Literal["primary", "fallback", "offline", "human", "none"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote, as far as it got."""

    html: str
    cuts: tuple[int, ...]
    """Length in characters of each content frame that was published; sums to `len(html)`."""
    dimension: str | None
    source: Source
    ordinal: int
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    confidence: float | None = None
    """Of what the answer is about, where the server gives log-probabilities: calibrated if the gate is on, else
    exp(mean log-probability) of the tokens that decide it."""
    mended: str | None = None
    """The code of what was left out of it, or put in its place, before it was shown."""
    read: Read = NOTHING_READ
    """What its model was shown of the knowledge base, and what of it is cited."""
    diagram: JsonValue = None
    """What a content generator described beside its text: as the model wrote it, unchecked."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The model finished and everything it wrote was visible."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Truncated:
    """The stream broke after visible text. The text stays; `closing` ends its open tags."""

    answer: Answer
    closing: str
    error: ProviderError


@dataclass(frozen=True, slots=True)
class Bounded:
    """No model answered before anything was visible: the visitor gets the bounded reply."""

    reason: DeadLetterReason
    ordinal: int | None
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class FailedUnseen:
    """An attempt failed before anything was visible: the next one may start."""

    error: ProviderError


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another owner has this turn now. Nothing more may be written; that owner settles it."""


Ending = Answered | Truncated | Bounded | LeaseLost
AttemptEnding = Answered | Truncated | FailedUnseen | LeaseLost
