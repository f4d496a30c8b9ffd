"""What servers say when they fail, in our words."""

import pytest

from schemas.completions import (
    BackendFailed,
    Incomplete,
    InvalidRequest,
    Overloaded,
    ProviderError,
    Unavailable,
)
from workers.providers.mapping import from_openai_event, from_status, from_tgi_event

SECRET = "the visitor wrote: my card is 4111"


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (301, InvalidRequest, "redirects"),
        (400, InvalidRequest, "schema"),
        (401, InvalidRequest, "key"),
        (403, InvalidRequest, "key"),
        (404, InvalidRequest, "model"),
        (413, InvalidRequest, "length"),
        (422, InvalidRequest, "schema"),
        (424, BackendFailed, "log"),
        (429, Overloaded, "room"),
        (500, BackendFailed, "log"),
        (502, BackendFailed, "log"),
        (503, Unavailable, "health"),
        (504, BackendFailed, "log"),
    ],
)
@pytest.mark.parametrize("body", [b"", SECRET.encode(), b'{"error":{"message":"' + SECRET.encode() + b'"}}'])
def test_statuses(status: int, kind: type[ProviderError], word: str, body: bytes) -> None:
    """Each status is one kind of error with advice, whatever the body, which is never repeated."""
    error = from_status(status, body)
    assert type(error) is kind
    assert word in str(error)
    assert str(status) in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":"unhealthy","error_type":"healthcheck"}', Unavailable),
        (b'{"error":"x","error_type":"overloaded"}', Overloaded),
        (b'{"error":{"message":"x","type":"ServiceUnavailableError","param":null,"code":503}}', Overloaded),
        (b"<html>bad gateway</html>", Unavailable),
        (b"[1]", Unavailable),
    ],
)
def test_503_is_two_things(body: bytes, kind: type[ProviderError]) -> None:
    """503 means a full server where it says so, and one that is not ready otherwise."""
    assert type(from_status(503, body)) is kind


@pytest.mark.parametrize(
    ("error_type", "kind"),
    [
        ("overloaded", Overloaded),
        ("generation", BackendFailed),
        ("incomplete_generation", Incomplete),
        ("incomplete_generation_stream", Incomplete),
        ("validation", InvalidRequest),
        ("template_error", InvalidRequest),
        ("tool_error", InvalidRequest),
        ("healthcheck", Unavailable),
        ("something_new", BackendFailed),
        (SECRET, BackendFailed),
        (None, BackendFailed),
    ],
)
def test_tgi_events(error_type: str | None, kind: type[ProviderError]) -> None:
    """Each `error_type` of TGI is one kind of error; a sentence in its place is not repeated."""
    error = from_tgi_event({"error": SECRET, "error_type": error_type})
    assert type(error) is kind
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"message": SECRET, "type": "InternalServerError", "code": 500}, BackendFailed),
        ({"message": SECRET, "type": "BadRequestError", "code": 400}, InvalidRequest),
        ({"message": SECRET, "type": "ServiceUnavailableError", "code": 503}, Overloaded),
        ({"message": SECRET, "code": 503}, Unavailable),
        ({"message": SECRET, "type": "server_error", "code": None}, BackendFailed),
        ({"message": SECRET, "type": "requests", "code": "rate_limit_exceeded"}, Overloaded),
        ({"message": "Model is overloaded", "http_status_code": 422}, Overloaded),
        ({"message": "Request failed during generation: x", "http_status_code": 422}, BackendFailed),
        ({"message": "Incomplete generation", "http_status_code": 422}, Incomplete),
        ({"message": "Input validation error: x", "http_status_code": 422}, InvalidRequest),
        (SECRET, BackendFailed),
    ],
)
def test_openai_events(body: object, kind: type[ProviderError]) -> None:
    """An error object inside a stream is classified by code, name or TGI's first words, and never repeated."""
    error = from_openai_event(body)
    assert type(error) is kind
    assert SECRET not in str(error)
