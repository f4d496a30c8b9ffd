"""JSON as the servers write it: compact, with characters as they are."""

import json
from collections.abc import Mapping

from aiohttp import web

quoted = json.JSONEncoder(ensure_ascii=False).encode
"""A text as a JSON string."""

compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""A value as JSON without spaces."""


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A response with `value` as its JSON body; its content type names no charset."""
    return web.Response(
        body=compact(value).encode(),
        status=status,
        headers={"Content-Type": "application/json", **(headers or {})},
    )
