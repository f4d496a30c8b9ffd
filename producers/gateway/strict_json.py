"""Bodies read strictly: what the framework would let through, and what would break later, is refused at once."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response


class _StrictRequest(Request):
    """A request whose JSON is strict: UTF-8, no half characters, no NaN, not nested without end."""

    async def json(self) -> Any:
        """Return the body.

        Raises:
            ValueError: it is not JSON.
        """
        return from_json(await self.body(), allow_inf_nan=False)


class StrictJsonRoute(APIRoute):
    """A route that reads its body with `_StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, given a strict request."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly
