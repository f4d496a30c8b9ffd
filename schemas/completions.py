"""What is asked of a model, what streams back, and the one family of errors every provider raises."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from pydantic import JsonValue

from schemas.ids import TurnId
from schemas.materials import Material


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. Text of visitors and documents never goes into `system`."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ModelClocks:
    """Seconds a model call may take: to connect, to its first token, between tokens, in all."""

    connect: float
    first_token: float
    between_tokens: float
    total: float


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One model call."""

    turn_id: TurnId
    ordinal: int
    """1 primary, 2 fallback: sent along so that a model server's log can be counted."""
    model: str
    messages: tuple[Message, ...]
    json_schema: dict[str, JsonValue] = field(repr=False)
    """The shape the output is constrained to; its first key is decided before any visible text."""
    max_tokens: int
    clocks: ModelClocks
    adapter: str | None = None
    temperature: float = 0.7
    traceparent: str | None = None
    material: Material | None = field(default=None, repr=False)
    """What the messages were made of, for the provider that has no model to read them."""


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that arrived in one read, with the log-probabilities of its tokens where the server gives them."""

    text: str
    logprobs: tuple[float, ...] = ()
    tokens: tuple[str, ...] = ()
    """The texts of those tokens, where the server tells them apart."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The model ended its output of its own accord. A stream without it is incomplete."""

    reason: str
    """`stop`, `length`, `eos_token`, `stop_sequence` or `content_filter`."""
    input_tokens: int | None = None
    output_tokens: int | None = None


class Provider(Protocol):
    """A model server's client: one call, no retry."""

    name: str

    def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta | Finish]:
        """Stream one completion; the last item of a whole one is a `Finish`.

        Raises:
            ProviderError: one of the closed family below; nothing else leaves a provider.
        """
        ...

    async def aclose(self) -> None:
        """Close what the provider holds open."""
        ...


class ProviderError(Exception):
    """A model call failed."""

    code: ClassVar[str] = "backend_failed"


class Overloaded(ProviderError):
    """The model server has no room. The fallback answers; look at its queue and its replicas."""

    code = "overloaded"


class InvalidRequest(ProviderError):
    """The model server refused the request itself. Sending it again cannot help; look at schema and names."""

    code = "invalid_request"


class BackendFailed(ProviderError):
    """The model server broke while answering."""

    code = "backend_failed"


class Incomplete(ProviderError):
    """The stream ended without a finish reason: what came is only a part."""

    code = "incomplete"


class Unavailable(ProviderError):
    """Nothing answers at the model server's address."""

    code = "unavailable"


class TimedOut(ProviderError):
    """A clock of the model call ran out."""

    code = "timeout"


class Malformed(ProviderError):
    """The output is not what it was constrained to be, or the stream is not the server's own dialect."""

    code = "malformed"


class LowConfidence(ProviderError):
    """The model is too unsure of what its answer is to be about. Nothing is broken: the fallback answers instead."""

    code = "low_confidence"


class LoadFailed(ProviderError):
    """The model could not be loaded into this process, and will not be tried again before its next start."""

    code = "load_failure"


ERROR_CODES = tuple(
    cls.code
    for cls in (
        Overloaded,
        InvalidRequest,
        BackendFailed,
        Incomplete,
        Unavailable,
        TimedOut,
        Malformed,
        LowConfidence,
        LoadFailed,
    )
)
