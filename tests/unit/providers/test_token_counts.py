"""Counting tokens by the server whose model reads them."""

from typing import Literal

import pytest

from simulators.answers import tokenise
from simulators.testing import running
from workers.agents.tokens import PER_MESSAGE, estimated_tokens
from workers.providers.token_counts import TokenCounts
from workers.providers.wire import Wire

TEXT = "We count stock by hand, 12 hours a week"


@pytest.mark.parametrize("dialect", ["tgi", "openai"])
async def test_the_server_counts_what_is_learnt(dialect: Literal["tgi", "openai"]) -> None:
    """What the server has counted is its number and the template's; what it has not is estimated."""
    wire = Wire()
    async with running(dialect) as simulator:
        counts = TokenCounts(wire=wire, base_url=simulator.base_url, dialect=dialect, model="m", api_key="-")
        assert counts.count(TEXT) == estimated_tokens(TEXT)

        await counts.learn([TEXT, TEXT])

        assert counts.count(TEXT) == len(tokenise(TEXT)) + PER_MESSAGE < estimated_tokens(TEXT)
        assert counts.count("other") == estimated_tokens("other")
    await counts.learn([TEXT])
    assert counts.count(TEXT) == len(tokenise(TEXT)) + PER_MESSAGE
    await wire.aclose()


async def test_a_server_that_does_not_count_is_left_alone() -> None:
    """Where nothing answers, or not with a count, estimates are used, and the next turn does not ask again."""
    wire = Wire()
    async with running("openai") as simulator:
        for address in ("http://127.0.0.1:1", simulator.base_url):
            counts = TokenCounts(wire=wire, base_url=address, dialect="tgi", model="m", api_key="-")
            await counts.learn([TEXT])
            assert counts.count(TEXT) == estimated_tokens(TEXT)
            await counts.learn(["another"])
            assert counts.count("another") == estimated_tokens("another")
    await wire.aclose()
