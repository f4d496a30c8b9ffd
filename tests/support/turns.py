"""Turns as a router meets them."""

from infra.postgres.inbox import PastTurn, Prepared
from schemas.agents import Agent
from schemas.ids import TurnId


def turn(text: str, *asked: str, brought: tuple[tuple[str, str], ...] = ()) -> Prepared:
    """Return a turn before which `asked` was asked and answered; these are turns 1, 2 and so on."""
    past = tuple(PastTurn(one, "<p>An answer.</p>", Agent.DISCOVERY, n) for n, one in enumerate(asked, 1))
    return Prepared(
        turn_id=TurnId("00000000-0000-0000-0000-000000000001"),
        tenant="acme",
        conversation_id="c",
        seq=len(past) + 1,
        epoch=1,
        text=text,
        channel="test",
        past=past,
        brought=brought,
        traceparent=None,
    )
