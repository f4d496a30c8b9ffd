"""Errors as a person at the edge reads them: RFC 9457 problem details, or OpenAI's shape for OpenAI's routes.

A problem never repeats what the request said, and never shows what is inside.
"""

import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Final, cast

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.postgres.statements import LedgerUnavailable
from producers.admission import KeyReused, NotAccepted, NotText, RateLimited
from schemas.problems import PROBLEM_CONTENT_TYPE, Problem

_log = structlog.stdlib.get_logger()

_OPENAI_ROUTES: Final = ("/v1/chat/", "/v1/models")

_OPENAI_TYPES: Final[dict[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

_SAFE_PLACE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,40}")
_ECHOING_TYPES: Final = frozenset({"union_tag_invalid", "literal_error", "enum"})


class ProblemError(Exception):
    """A request that cannot be served as it is. The problem says why and what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: JsonValue,
    ) -> None:
        super().__init__(detail)
        self.problem: Problem = Problem.model_validate(
            {
                "type": f"/problems/{code}",
                "title": title,
                "status": status,
                "detail": detail,
                "code": code,
                **more,
            }
        )
        self.headers: dict[str, str] = dict(headers or {})


_BY_STATUS: Final[dict[int, tuple[str, str, str]]] = {
    400: ("bad_request", "The request cannot be read", "Send a body that is valid JSON in UTF-8."),
    404: ("not_found", "Nothing is here", "Check the path against /openapi.json."),
    405: ("method_not_allowed", "This path has other methods", "The Allow header lists them."),
    408: ("too_slow", "The request took too long", "Send the whole body within 20 seconds."),
    413: ("too_large", "The request is too large", "Send less at a time; nothing was stored."),
}


def unauthenticated(detail: str) -> ProblemError:
    """Return the 401 problem."""
    return ProblemError(401, "unauthenticated", "Who asks is not known", detail, headers={"WWW-Authenticate": "Bearer"})


def forbidden(code: str, detail: str) -> ProblemError:
    """Return a 403 problem."""
    return ProblemError(403, code, "This is not allowed", detail)


def unknown_turn() -> ProblemError:
    """Return the problem of a turn that does not exist, or is somebody else's: nobody can tell which."""
    return ProblemError(404, "unknown_turn", "There is no such turn", "Check its id, and whose key asks for it.")


def problem_of(error: Exception) -> ProblemError:
    """Name any error of ours, of the framework, or a surprise, as the edge may see it."""
    match error:
        case ProblemError():
            return error
        case RequestValidationError():
            return _invalid(cast("Sequence[Mapping[str, object]]", error.errors()))
        case HTTPException():
            return _http(error)
        case NotText():
            return ProblemError(422, "invalid_request", "The request does not fit", str(error))
        case KeyReused():
            return ProblemError(
                409,
                "key_reused",
                "The idempotency key stands for another message",
                "Send the first message again under this key, or choose a new key for this one.",
            )
        case RateLimited():
            return _later(429, "rate_limited", "Too many turns", str(error), error.retry_after)
        case NotAccepted():
            return _later(503, "not_accepted", "The message was not accepted", str(error), error.retry_after)
        case LedgerUnavailable():
            return _later(503, "ledger_unavailable", "The ledger does not answer", "Ask again in a few seconds.", 2)
        case _:
            return ProblemError(
                500,
                "internal",
                "Something unexpected happened",
                "It was logged. Sending the request again may help, and with the same idempotency key it is safe.",
            )


def respond(path: str, error: ProblemError) -> Response:
    """Return the response for a problem, in the shape the route's clients read."""
    problem = error.problem
    if path.startswith(_OPENAI_ROUTES):
        kind = _OPENAI_TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
        body: dict[str, JsonValue] = {
            "error": {"message": _message(problem), "type": kind, "param": None, "code": problem.code}
        }
        return JSONResponse(body, status_code=problem.status, headers=error.headers)
    return JSONResponse(
        problem.model_dump(mode="json"),
        status_code=problem.status,
        headers=error.headers,
        media_type=PROBLEM_CONTENT_TYPE,
    )


def install(app: FastAPI) -> None:
    """Answer every expected error of the routes with a problem."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            # The framework names the methods of one route; a path may have two.
            error = HTTPException(405, headers=_allowed(app, request.url.path) or error.headers)
        return respond(request.url.path, problem_of(error))

    expected: tuple[type[Exception], ...] = (
        ProblemError,
        RequestValidationError,
        HTTPException,
        NotText,
        KeyReused,
        RateLimited,
        NotAccepted,
        LedgerUnavailable,
    )
    for kind in expected:
        app.add_exception_handler(kind, answer)


def _allowed(app: FastAPI, path: str) -> dict[str, str]:
    """Return the header that lists the methods of a path; empty for one that the document does not have."""
    paths = cast("dict[str, dict[str, object]]", app.openapi()["paths"])
    for known, operations in sorted(paths.items(), key=lambda item: "{" in item[0]):
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(known)), path):
            return {"Allow": ", ".join(sorted(method.upper() for method in operations))}
    return {}


class Surprises:
    """ASGI middleware: a bug becomes a 500 problem and one log line that holds no text of the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; answer what nothing else has answered."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] in ("http.response.start", "websocket.accept")
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  (the one place that answers for every bug)
            path = str(scope.get("path", ""))
            _log.error("request_failed", kind=scope["type"], error=type(error).__name__, at=_origin(error))
            if scope["type"] == "http" and not started:
                await respond(path, problem_of(error))(scope, receive, send)
            elif scope["type"] == "websocket" and started:
                await send({"type": "websocket.close", "code": 1011})


def _http(error: HTTPException) -> ProblemError:
    code, title, detail = _BY_STATUS.get(
        error.status_code, ("http_error", "The request cannot be served", "Check the request.")
    )
    return ProblemError(error.status_code, code, title, detail, headers=error.headers)


def _later(status: int, code: str, title: str, detail: str, seconds: int) -> ProblemError:
    return ProblemError(status, code, title, detail, headers={"Retry-After": str(seconds)}, retry_after=seconds)


def _invalid(errors: Sequence[Mapping[str, object]]) -> ProblemError:
    if any(found["type"] == "json_invalid" for found in errors):
        return _http(HTTPException(400))
    places: list[JsonValue] = [{"at": _place(found), "message": _sentence(found)} for found in errors]
    return ProblemError(
        422,
        "invalid_request",
        "The request does not fit",
        "Mend what 'errors' lists and send it again; nothing was stored.",
        errors=places,
    )


def _place(found: Mapping[str, object]) -> str:
    loc = cast("Sequence[object]", found["loc"])
    return ".".join(str(part) if isinstance(part, int) or _SAFE_PLACE.fullmatch(str(part)) else "…" for part in loc)


def _sentence(found: Mapping[str, object]) -> str:
    if found["type"] in _ECHOING_TYPES:
        return "This value is not one of those allowed"
    return str(found["msg"]).removeprefix("Value error, ")


def sentences(errors: Sequence[Mapping[str, object]]) -> str:
    """Return validation errors as one line, without anything of the input's values."""
    return "; ".join(f"{_place(found)}: {_sentence(found)}" for found in errors)


def _message(problem: Problem) -> str:
    more = cast("Mapping[str, object]", problem.model_extra or {})
    errors = cast("Sequence[Mapping[str, str]]", more.get("errors", ()))
    listed = "; ".join(f"{found['at']}: {found['message']}" for found in errors)
    return f"{problem.title}. {listed or problem.detail}"


def _origin(error: BaseException) -> list[str]:
    """Return the innermost places it passed: never the exception's words, which may quote the request."""
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}:{frame.name}" for frame in frames]
