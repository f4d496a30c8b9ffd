"""An orchestrator finds the heads of conversations by itself."""

from pydantic import SecretStr

from infra.settings import Settings
from tests.support.pipeline import pipeline
from workers.orchestrator.process import orchestrator


async def test_a_head_that_nobody_announced_is_found_and_prepared_once(
    memory_kafka: str, database_url: str, redis_url: str
) -> None:
    """Two orchestrators that look at once queue the first turn of a conversation under one claim, and no later one."""
    settings = Settings(kafka=memory_kafka, redis=redis_url, database=SecretStr(database_url))
    async with pipeline(database_url, redis_url) as p, orchestrator(settings) as one, orchestrator(settings) as other:
        turns = [await p.record("c1", "Hello there"), await p.record("c1", "Hello again")]
        await one.find_heads()
        assert (await p.row(turns[0]))["state"] == "received"
        await p.query("UPDATE turns SET created_at = created_at - interval '3 s'")

        for process in (one, one, other):
            await process.find_heads()
        await one.drain()
        await other.drain()

        first, second = [await p.row(turn) for turn in turns]
        assert (first["state"], first["epoch"], second["state"]) == ("queued", 1, "received")
