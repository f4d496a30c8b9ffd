"""The OpenAPI document, with every error in it."""

from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import JsonValue

from schemas.problems import PROBLEM_CONTENT_TYPE, Problem

Responses = dict[int | str, dict[str, Any]]

_MEANING: Final[dict[int, str]] = {
    400: "The body is not JSON in UTF-8",
    401: "No valid credential",
    403: "The credential does not allow this",
    404: "There is no such thing, or it is somebody else's",
    408: "The body did not arrive in time",
    409: "The idempotency key stands for another message, or a job is in another state",
    413: "The body is too large",
    422: "The request does not fit its schema",
    429: "Too many turns",
    503: "A dependency does not answer; nothing was stored that a retry would repeat",
    504: "The turn is still running; its id is in the problem",
}

_RETRY_AFTER: Final = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}}}


def error_responses(*statuses: int, openai: bool = False) -> Responses:
    """Return OpenAPI responses for problems with these statuses."""
    return {status: _response(status, openai=openai) for status in statuses}


def event_stream(description: str, *, headers: dict[str, JsonValue] | None = None) -> dict[str, Any]:
    """Return the OpenAPI response of a stream of server-sent events."""
    # The schema of one event, as OpenAPI 3.2 describes streams.
    schema = {
        "type": "object",
        "description": "One event: a frame (`id` is its number), or the closing `[DONE]`.",
        "required": ["data"],
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9]+$"},
            "event": {"type": "string"},
            "data": {"type": "string", "description": "A `chat.completion.chunk` as JSON, or `[DONE]`."},
        },
    }
    return {"description": description, "content": {"text/event-stream": {"schema": schema}}, "headers": headers or {}}


def _response(status: int, *, openai: bool) -> dict[str, Any]:
    name, kind = ("OpenAIError", "application/json") if openai else ("Problem", PROBLEM_CONTENT_TYPE)
    response: dict[str, Any] = {
        "description": _MEANING[status],
        "content": {kind: {"schema": {"$ref": f"#/components/schemas/{name}"}}},
    }
    if not openai:
        response["content"][kind]["example"] = {
            "type": "/problems/…",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": "What to do about it.",
            "code": "…",
        }
    if status in (429, 503):
        response["headers"] = _RETRY_AFTER
    return response


_OPENAI_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def install(app: FastAPI) -> None:
    """Serve the document with the shared error schemas in it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend the document


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    for path in cast("dict[str, dict[str, dict[str, Any]]]", document["paths"]).values():
        for operation in path.values():
            _without_null(operation.get("parameters", []))
    components = cast("dict[str, dict[str, Any]]", document.setdefault("components", {}))
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    schemas["OpenAIError"] = _OPENAI_ERROR
    return document


def _without_null(parameters: list[dict[str, Any]]) -> None:
    """Take `null` out of the schemas of parameters: a header or a path can be absent, not null."""
    for parameter in parameters:
        schema = cast("dict[str, Any]", parameter["schema"])
        choices = [choice for choice in schema.pop("anyOf", []) if choice != {"type": "null"}]
        if choices:
            schema.update(choices[0])
