"""Small requests with JSON in and out."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

_PIECE: Final = 65_536
_NEAR: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class _Place(BaseModel):
    at: str
    message: str


class _Problem(BaseModel):
    detail: str = ""
    errors: list[_Place] = []


class HttpFailed(Exception):
    """The other side refused, or could not be reached. `status` is None when nothing answered."""

    def __init__(self, sentence: str, *, status: int | None = None, detail: str = "") -> None:
        super().__init__(sentence)
        self.status: int | None = status
        self.detail: str = detail
        """What the other side said about it, if anything."""


def is_near(url: str) -> bool:
    """Whether an address is on this machine: then no proxy lies between."""
    return urlsplit(url).hostname in _NEAR


def request(
    url: str,
    *,
    method: str = "GET",
    body: object = None,
    key: str | None = None,
    once: str | None = None,
    seconds: float = 5,
) -> bytes:
    """Send a request and return the answer's body.

    Args:
        url: whom.
        method: of the request.
        body: sent as JSON.
        key: of whoever asks.
        once: names what is asked for: sent again under the same name it is done once.
        seconds: to wait for an answer.

    Raises:
        HttpFailed: any status but 2xx, or no answer.
    """
    with _answer(url, method=method, body=body, key=key, once=once, seconds=seconds) as answer:
        return bytes(answer.read())


def lines_of(url: str, *, key: str, seconds: float = 60) -> Iterator[bytes]:
    """Yield the lines of a long answer as they come, without their ends.

    Raises:
        HttpFailed: any status but 2xx, no answer, or one that broke off.
    """
    with _answer(url, method="GET", body=None, key=key, seconds=seconds) as answer:
        rest = b""
        # Not line by line: a line that is read from a broken connection looks like the last one.
        while piece := answer.read1(_PIECE):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
        if rest:
            raise HttpFailed(f"{url} broke off in mid-line")


@contextmanager
def _answer(
    url: str, *, method: str, body: object, key: str | None, seconds: float, once: str | None = None
) -> Generator[http.client.HTTPResponse]:
    headers = {"Accept": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if once is not None:
        headers["Idempotency-Key"] = once
    if body is not None:
        headers["Content-Type"] = "application/json"
    if urlsplit(url).scheme not in {"http", "https"}:
        raise HttpFailed(f"{url} is not an http or https address")
    asked = urllib.request.Request(  # noqa: S310  the scheme was looked at
        url, data=None if body is None else json.dumps(body).encode(), headers=headers, method=method
    )
    proxies = urllib.request.ProxyHandler({}) if is_near(url) else urllib.request.ProxyHandler()
    try:
        with urllib.request.build_opener(proxies).open(asked, timeout=seconds) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        with error:
            detail = _detail(error.read())
        raise HttpFailed(f"{url} answered {error.code}: {detail}", status=error.code, detail=detail) from None
    except http.client.HTTPException:
        raise HttpFailed(f"{url} broke off") from None
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise HttpFailed(f"{url} cannot be reached: {reason}") from None


def _detail(body: bytes) -> str:
    """What a problem document says, or nothing."""
    try:
        problem = _Problem.model_validate_json(body)
    except ValidationError:
        return ""
    return "; ".join(f"{place.at}: {place.message}" for place in problem.errors) or problem.detail
