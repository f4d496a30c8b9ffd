"""What an operator asks of a gateway: where it is, with which key, and what a refusal means."""

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cli.failure import CommandFailed
from cli.http import HttpFailed, request
from cli.state import local_endpoints

REFUSED: Final = 3
"""Exit status when the key may not do what was asked."""


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
            return CommandFailed(f"Nothing answers at {place}: see `fairlead doctor`.")
        case 401:
            return CommandFailed(f"{gateway} does not know the key: it is wrong, expired or revoked.", status=REFUSED)
        case 403:
            return CommandFailed(
                "The key may not do this: it takes one made with `fairlead keys create --scope operator "
                "--scope installation`.",
                status=REFUSED,
            )
        case _:
            return CommandFailed(str(error))
