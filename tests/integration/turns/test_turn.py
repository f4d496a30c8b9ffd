"""One turn on real PostgreSQL and Redis, with model simulators that fail on demand."""

import asyncio

import pytest

from infra.redis.frame_log import Stream
from schemas.agents import Agent, Lane
from schemas.frames import Phase
from tests.support.pipeline import Pipeline, content_of, pipeline


async def test_a_turn_is_answered_by_the_fine_tuned_model(database_url: str, redis_url: str) -> None:
    """A discovery turn ends answered, by one primary call, its frames numbered from routed to done."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.say("c1", "Hello there")

        row = await p.row(turn)
        frames = await p.log(turn)

        assert (row["state"], row["source"], row["agent"]) == ("answered", "primary", Agent.DISCOVERY)
        assert p.calls(turn) == (1, 0)
        assert [frame.seq for frame in frames] == list(range(1, len(frames) + 1))
        assert frames[0].phase is Phase.ROUTED
        assert [frame.phase for frame in frames[-1:]] == [Phase.DONE]
        assert content_of(frames) == row["content"]
