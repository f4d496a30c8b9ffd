"""What visitors see of messages that were answered together."""

import asyncio

import httpx2
from redis.asyncio import Redis

from infra.policy import load_policy
from schemas.ids import TurnId
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.reading import Event, content, told, watch
from tests.support.pipeline import TENANT, Pipeline, patient, pipeline

MESSAGES = ("Hello there", "we count stock by hand", "in two warehouses")


async def _group(p: Pipeline) -> list[TurnId]:
    turns = [await p.record("c1", message) for message in MESSAGES]
    await p.preparation.run(turns[0])
    return turns


def _phases(events: list[Event]) -> list[str]:
    return [event.frame["fairlead"]["phase"] for event in events[:-1]]


async def test_each_watcher_of_a_group_has_one_stream_with_one_end(
    gateway: Gateway, database_url: str, redis_url: str
) -> None:
    """Watchers of every message, early and late, are told numbered frames and one end that names the answered turn."""
    policy = patient(load_policy()).model_copy(update={"coalesce": True})
    async with pipeline(database_url, redis_url, policy=policy) as p:
        key = await gateway.parts.tenants.create_key(TENANT)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as http:
            turns = await _group(p)
            watching = [asyncio.create_task(watch(http, turn)) for turn in turns]
            await asyncio.sleep(0.3)
            await p.answer(turns[0])
            head, *others = live = await asyncio.gather(*watching)

            assert content(head) == (await p.row(turns[0]))["content"]
            assert "answered_in" not in head[-2].frame["fairlead"]
            for events in others:
                assert [event.id for event in events[:-1]] == [0, 1]
                assert _phases(events) == ["accepted", "done"]
                assert content(events) == ""
                assert events[1].frame["fairlead"]["answered_in"] == turns[0]
            assert [told(await watch(http, turn)) for turn in turns] == [told(events) for events in live]
            async with Redis.from_url(redis_url) as redis:
                await redis.flushall()
            assert [told(await watch(http, turn)) for turn in turns] == [told(events) for events in live]

            found = [(await http.get(f"/v1/turns/{turn}")).json() for turn in turns]
            assert [turn["answered_in"] for turn in found] == [None, turns[0], turns[0]]
            assert [turn["state"] for turn in found] == ["answered"] * 3
            transcript = (await http.get("/v1/conversations/c1")).json()["turns"]
            assert [turn["text"] for turn in transcript] == list(MESSAGES)
            assert [turn["answered_in"] for turn in transcript] == [None, turns[0], turns[0]]
            assert [turn["answer"]["html"] for turn in transcript[1:]] == ["", ""]
