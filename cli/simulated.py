"""The simulated models of a running system: what they shall do next, and what was asked of them."""

import json
from collections import Counter
from typing import Literal

from pydantic import BaseModel, TypeAdapter

from cli.http import request

Fault = Literal["none", "status", "event", "cut", "close", "hang", "malformed", "slow"]


class ModelCall(BaseModel):
    """One request that a simulated model received."""

    turn: str | None
    attempt: str | None
    path: str
    outcome: str
    routing: str | None = None
    """The turn that was routed, where that is what the model was asked for."""


_CALLS: TypeAdapter[list[ModelCall]] = TypeAdapter(list[ModelCall])


def set_fault(simulator: str, fault: Fault, **details: float) -> None:
    """Let the simulator at this address fail so from now on.

    Raises:
        HttpFailed: it refused or is away.
    """
    request(f"{simulator}/_control", method="PUT", body={"fault": fault, **details})


def model_calls(simulator: str) -> list[ModelCall]:
    """Return the answers that were asked of the simulator at this address, oldest first.

    Raises:
        HttpFailed: it is away.
    """
    calls = _CALLS.validate_python(json.loads(request(f"{simulator}/_control/requests")))
    return [call for call in calls if call.routing is None]


def excessive(calls: list[ModelCall]) -> list[str]:
    """Return the turns for which more was asked than one primary and one fallback call."""
    counts = Counter((call.turn, call.attempt) for call in calls if call.turn is not None)
    return sorted({str(turn) for (turn, attempt), count in counts.items() if count > 1 or attempt not in {"1", "2"}})
