"""What an operator asks of a gateway: where it is, with which key, and what a refusal means."""

import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, ValidationError

from cli.failure import CommandFailed
from cli.http import HttpFailed, request
from cli.state import DEFAULT_STATE, local_endpoints
from cli.terminal import harmless

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

REFUSED: Final = 3
"""Exit status when the key may not do what was asked, or nobody said yes to it."""

_UNREADY: Final = frozenset({502, 503, 504})


PAGE: Final = 200
"""Rows asked for at once."""


class _Rows(BaseModel):
    rows: list[Any]
    next: str | int | None = None


class GatewayAway(CommandFailed):
    """Nothing answers, or it cannot answer now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A gateway and an operator's key to it."""

    gateway: str
    key: str = field(repr=False)
    again: str
    """Options with which a further command finds it; the key is not among them."""

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: object = None,
        query: Mapping[str, str | None] | None = None,
        once: str | None = None,
        seconds: float = 5,
        missing: str | None = None,
    ) -> Any:
        """Send a request and return the JSON of the answer.

        Args:
            path: of the route.
            method: of the request.
            body: sent as JSON.
            query: parameters; those that are None are left out.
            once: names what is asked for: sent again under the same name it is done once.
            seconds: to wait for an answer.
            missing: the sentence for what is not there.

        Raises:
            GatewayAway: nothing answers now.
            CommandFailed: it was refused: exit status 2 for what cannot be read, 3 where the key is why.
        """
        try:
            asked = self.url(path, query)
            return json.loads(request(asked, method=method, body=body, key=self.key, once=once, seconds=seconds))
        except HttpFailed as error:
            if error.status == 404 and missing is not None:
                raise CommandFailed(missing) from error
            raise plainly(error, self.gateway) from error
        except ValueError as error:
            raise CommandFailed(f"What answers at {self.gateway} is not a gateway of this version.") from error

    def rows(
        self, path: str, cursor: str, *, limit: int, query: Mapping[str, str | None] | None = None
    ) -> tuple[list[Any], bool]:
        """Return up to `limit` rows of a listing, asked for page by page, and whether there are more.

        Args:
            path: of the route.
            cursor: its parameter for where the next page begins.
            limit: rows at most.
            query: its other parameters.

        Raises:
            CommandFailed: as `ask`.
        """
        found: list[Any] = []
        begins: str | None = None
        while len(found) < limit:
            asked = {**(query or {}), cursor: begins, "limit": str(min(PAGE, limit - len(found)))}
            page = self.read(_Rows, self.ask(path, query=asked))
            found += page.rows
            if page.next is None:
                return found, False
            begins = str(page.next)
        return found, True

    def read(self, model: type[M], found: object) -> M:
        """Return what an answer tells of.

        Raises:
            CommandFailed: it tells of nothing we know.
        """
        try:
            return model.model_validate(found)
        except ValidationError as error:
            raise CommandFailed(f"What answers at {self.gateway} is not a gateway of this version.") from error

    def url(self, path: str, query: Mapping[str, str | None] | None = None) -> str:
        """Return the address of a route."""
        asked = urlencode({name: value for name, value in (query or {}).items() if value is not None})
        return f"{self.gateway}{path}{f'?{asked}' if asked else ''}"


def place_of(state: Path, url: str | None, key: str | None) -> Place:
    """Return where an operator's requests go: the address given, or the system of this machine.

    Raises:
        CommandFailed: an address without a key, or nothing was started there.
    """
    gateway, key = operators_gateway(state, url, key)
    if url is not None:
        again = f" --url {shlex.quote(url)}"
    else:
        again = "" if state == DEFAULT_STATE else f" --state {shlex.quote(str(state))}"
    return Place(gateway=gateway, key=key, again=harmless(again))


def patiently(ask: Callable[[], T], *, seconds: float = 60.0) -> T:
    """Ask until somebody answers, `seconds` long at most.

    Raises:
        GatewayAway: nobody did.
        CommandFailed: it was refused.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except GatewayAway:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


def plainly(error: HttpFailed, gateway: str) -> CommandFailed:
    """Return what a request that failed means, where the gateway's own words say it best."""
    if error.detail and error.status in {400, 422}:
        return CommandFailed(harmless(error.detail), status=2)
    if error.detail and error.status == 409:
        return CommandFailed(harmless(error.detail))
    if error.status == 403:
        said = f"{harmless(error.detail)} " if error.detail else ""
        return CommandFailed(f"{said}Make one with `fairlead keys create --scope operator`.", status=REFUSED)
    return refusal(error, gateway)


def operators_gateway(state: Path, url: str | None, key: str | None) -> tuple[str, str]:
    """Return the gateway's base address and an operator's key: those given, or those of a system on this machine.

    Raises:
        CommandFailed: an address without a key, or nothing was started there.
    """
    if url is None:
        found = local_endpoints(state)
        return found.gateway.rstrip("/"), key or found.operator_key
    if key is None:
        raise CommandFailed("--url needs an operator's key: give --key, or set FAIRLEAD_OPERATOR_KEY.", status=2)
    return url.rstrip("/"), key


def ask(gateway: str, path: str, *, key: str, method: str = "GET", body: object = None) -> Any:
    """Send a request and return the JSON of the answer.

    Raises:
        CommandFailed: it was refused (exit status 3 where the key is why), or nothing answers.
    """
    try:
        return json.loads(request(f"{gateway}{path}", method=method, body=body, key=key))
    except HttpFailed as error:
        raise refusal(error, gateway) from error
    except ValueError as error:
        raise CommandFailed(f"What answers at {gateway} is not a gateway of this version.") from error


def refusal(error: HttpFailed, gateway: str) -> CommandFailed:
    """Return what a failed request means to an operator."""
    match error.status:
        case None:
            place = urlsplit(gateway).netloc or gateway
            return GatewayAway(f"Nothing answers at {place}: see `fairlead doctor`.")
        case 401:
            return CommandFailed(f"{gateway} does not know the key: it is wrong, expired or revoked.", status=REFUSED)
        case 403:
            return CommandFailed(
                "The key may not do this: it takes one made with `fairlead keys create --scope operator "
                "--scope installation`.",
                status=REFUSED,
            )
        case status if status in _UNREADY:
            return GatewayAway(str(error))
        case _:
            return CommandFailed(str(error))
