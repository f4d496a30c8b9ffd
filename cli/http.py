"""Small requests with JSON in and out."""

import json
import urllib.error
import urllib.request
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

_NEAR: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class _Problem(BaseModel):
    detail: str = ""


class HttpFailed(Exception):
    """The other side refused, or could not be reached. `status` is None when nothing answered."""

    def __init__(self, sentence: str, *, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status: int | None = status


def is_near(url: str) -> bool:
    """Whether an address is on this machine: then no proxy lies between."""
    return urlsplit(url).hostname in _NEAR


def request(url: str, *, method: str = "GET", body: object = None, key: str | None = None, seconds: float = 5) -> bytes:
    """Send a request and return the answer's body.

    Raises:
        HttpFailed: any status but 2xx, or no answer.
    """
    headers = {"Accept": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
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
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            raise HttpFailed(f"{url} answered {error.code}: {_detail(error.read())}", status=error.code) from None
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise HttpFailed(f"{url} cannot be reached: {reason}") from None


def _detail(body: bytes) -> str:
    """What a problem document says, or nothing."""
    try:
        return _Problem.model_validate_json(body).detail
    except ValidationError:
        return ""
