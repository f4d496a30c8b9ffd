"""Turns as `GET /v1/turns/{id}` tells them."""

from pydantic import BaseModel

from cli.http import request
from schemas.turns import TERMINAL, TurnState


class Attempt(BaseModel):
    """One model call."""

    ordinal: int
    model: str
    state: str
    error: str | None = None


class Turn(BaseModel):
    """How a turn stands; `attempts` are told to operators only."""

    turn_id: str
    state: TurnState
    agent: str | None = None
    source: str
    attempts: list[Attempt] = []

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL


def read_turn(gateway: str, turn_id: str, *, key: str) -> Turn:
    """Ask how a turn stands.

    Raises:
        HttpFailed: the gateway refused or is away.
        ValueError: it answered something else.
    """
    return Turn.model_validate_json(request(f"{gateway.rstrip('/')}/v1/turns/{turn_id}", key=key))
