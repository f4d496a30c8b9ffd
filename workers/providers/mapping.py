"""What model servers say when they fail, in our words.

The server's own text never enters a message: it may quote the prompt.
"""

import re
from collections.abc import Mapping
from typing import Final, cast

import jiter

from schemas.completions import (
    BackendFailed,
    CompletionRequest,
    Incomplete,
    InvalidRequest,
    Malformed,
    Overloaded,
    ProviderError,
    Unavailable,
)

_KINDS: Final[dict[str, type[ProviderError]]] = {
    # TGI's `error_type`
    "overloaded": Overloaded,
    "healthcheck": Unavailable,
    "generation": BackendFailed,
    "incomplete_generation": Incomplete,
    "incomplete_generation_stream": Incomplete,
    "validation": InvalidRequest,
    "template_error": InvalidRequest,
    "missing_template_variable": InvalidRequest,
    "tool_error": InvalidRequest,
    # `type` or `code` of OpenAI and vLLM
    "rate_limit_exceeded": Overloaded,
    "insufficient_quota": Overloaded,
    "RateLimitError": Overloaded,
    "ServiceUnavailableError": Overloaded,
    "server_error": BackendFailed,
    "InternalServerError": BackendFailed,
    "invalid_request_error": InvalidRequest,
    "BadRequestError": InvalidRequest,
    "NotFoundError": InvalidRequest,
    "UnprocessableEntityError": InvalidRequest,
}

_TGI_CHAT: Final = (
    ("Model is overloaded", Overloaded),
    ("Request failed during generation", BackendFailed),
    ("Incomplete generation", Incomplete),
    ("unhealthy", Unavailable),
)
"""TGI's chat route says 422 for every cause; only the first words tell them apart."""

_ADVICE: Final[dict[type[ProviderError], str]] = {
    Overloaded: "it has no room; look at its queue, its replicas and the account's limits",
    InvalidRequest: "it refuses the request; look at the schema, the prompt's length and the model's name",
    BackendFailed: "it broke while answering; look at its log",
    Incomplete: "it stopped before the answer was whole; look at its log",
    Unavailable: "it is not ready; look at its health",
}

_STATUSES: Final[dict[int, tuple[type[ProviderError], str]]] = {
    401: (InvalidRequest, "it does not accept the API key; look at the key"),
    403: (InvalidRequest, "the API key may not do this; look at the key and its rights"),
    404: (InvalidRequest, "it does not know the model or the address; look at the model's name and the base URL"),
    424: (BackendFailed, _ADVICE[BackendFailed]),
    429: (Overloaded, _ADVICE[Overloaded]),
}

_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z_]{2,39}")


def from_status(status: int, body: bytes) -> ProviderError:
    """Return our error for an HTTP answer that is not 200."""
    if status in _STATUSES:
        kind, advice = _STATUSES[status]
    elif 300 <= status < 400:
        kind, advice = InvalidRequest, "it redirects; set the address it redirects to"
    elif status == 503:
        kind = Overloaded if _kind_in(body) is Overloaded else Unavailable
        advice = _ADVICE[kind]
    else:
        kind = InvalidRequest if status < 500 else BackendFailed
        advice = _ADVICE[kind]
    return kind(f"the model server answered HTTP {status}: {advice}")


def from_tgi_event(event: Mapping[str, object]) -> ProviderError:
    """Return our error for TGI's `{"error", "error_type"}` inside a stream."""
    name = _identifier(event.get("error_type"))
    kind = _KINDS.get(name, BackendFailed)
    return kind(f"the model server ended its stream with an error ({name or 'no type'}): {_ADVICE[kind]}")


def from_openai_event(error: object) -> ProviderError:
    """Return our error for the `error` object inside an OpenAI-compatible stream."""
    fields = _object(error)
    kind = _kind_of(fields)
    said = fields.get("code") or fields.get("type") or fields.get("http_status_code")
    name = said if isinstance(said, int) else _identifier(said) or "no code"
    return kind(f"the model server ended its stream with an error ({name}): {_ADVICE[kind]}")


def not_the_dialect(dialect: str) -> Malformed:
    """Return the error of an event that is not one of `dialect`."""
    return Malformed(f"an event of the stream is not one of {dialect}; is the address such a server's?")


def headers(request: CompletionRequest) -> dict[str, str]:
    """Return the headers that let a model server's log be counted against the ledger."""
    return {"X-Fairlead-Turn": request.turn_id, "X-Fairlead-Attempt": str(request.ordinal)}


def _kind_of(fields: Mapping[str, object]) -> type[ProviderError]:
    if "http_status_code" in fields:
        message = str(fields.get("message"))
        return next((kind for start, kind in _TGI_CHAT if message.startswith(start)), InvalidRequest)
    code = fields.get("code")
    if isinstance(code, int):
        return type(from_status(code, b'{"error":%s}' % _type_only(fields)))
    named = _identifier(code), _identifier(fields.get("type"))
    return next((_KINDS[name] for name in named if name in _KINDS), BackendFailed)


def _type_only(fields: Mapping[str, object]) -> bytes:
    return b'{"type":"%s"}' % _identifier(fields.get("type")).encode()


def _kind_in(body: bytes) -> type[ProviderError] | None:
    """Return what the JSON of an error answer names, if it is JSON and names something we know."""
    try:
        answer: object = jiter.from_json(body)
    except ValueError:
        return None
    fields = _object(answer)
    inner = _object(fields.get("error"))
    names = map(_identifier, (fields.get("error_type"), inner.get("code"), inner.get("type")))
    return next((_KINDS[name] for name in names if name in _KINDS), None)


def _object(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _identifier(value: object) -> str:
    """Return `value` if it is a name, not a sentence that could quote somebody."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else ""
