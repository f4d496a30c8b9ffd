"""A real agent worker process: Celery in front, one event loop behind."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import yaml

from infra.policy import load_policy
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.policy import Policy
from tests.support.children import child
from tests.support.pipeline import Pipeline, pipeline, until

LANES = ("--lane", Lane.DISCOVERY.value, "--lane", Lane.FRONTIER_FALLBACK.value)


@asynccontextmanager
async def _worker(
    p: Pipeline, database_url: str, redis_url: str, log: Path, **more: str
) -> AsyncGenerator[psutil.Process]:
    env = {
        "FAIRLEAD_DATABASE": database_url,
        "FAIRLEAD_REDIS": redis_url,
        "FAIRLEAD_DISCOVERY_BASE_URL": p.tgi.base_url,
        "FAIRLEAD_FRONTIER_BASE_URL": p.openai.base_url,
        "FAIRLEAD_METRICS_PORT": "-1",
        "FAIRLEAD_LOG_FORMAT": "json",
        **more,
    }
    async with child("agents", *LANES, env=env, log=log) as process:
        yield process


def _unhurried(policy: Policy) -> Policy:
    """Return the policy with clocks that no crowded machine runs out."""
    models = {name: model.model_copy(update={"first_token": 60}) for name, model in policy.models.items()}
    clocks = {"between_tokens": 60, "stream": 120, "queue": 90, "turn": 240, "lease": 60}
    return policy.model_copy(update={"models": models, "deadlines": policy.deadlines.model_copy(update=clocks)})


async def _ended(p: Pipeline, turns: list[TurnId]) -> bool:
    [open_turns] = await p.query(
        "SELECT count(*) AS n FROM turns WHERE turn_id = ANY(CAST(:t AS uuid[])) AND done_at IS NULL", t=turns
    )
    return open_turns["n"] == 0


async def _states(p: Pipeline) -> dict[str, int]:
    found = await p.query("SELECT state, count(*)::int AS n FROM turns GROUP BY state")
    return {str(row["state"]): int(str(row["n"])) for row in found}


async def test_a_hint_on_a_lane_becomes_an_answer(database_url: str, redis_url: str, state_directory: Path) -> None:
    """A stock Celery consumer reads our hint, the loop answers the turn, SIGTERM ends the process cleanly."""
    async with pipeline(database_url, redis_url) as p, _worker(p, database_url, redis_url, state_directory / "log"):
        turn = await p.queue("c1", "Hello there")

        await until(lambda: _ended(p, [turn]), seconds=30)

        assert (await p.row(turn))["state"] == "answered"
        assert p.calls(turn) == (1, 0)


async def test_five_hundred_streams_share_one_process_without_a_thread_each(
    database_url: str, redis_url: str, state_directory: Path
) -> None:
    """500 turns stream at once in one process with a handful of threads; all are answered, by one call each."""
    policy = state_directory / "policy.yaml"
    policy.write_text(yaml.safe_dump(_unhurried(load_policy()).model_dump(mode="json")), encoding="utf-8")
    more = {"FAIRLEAD_WORKER_CAPACITY": "500", "FAIRLEAD_POLICY": str(policy)}
    async with (
        # Answers take longer than a slow machine needs to claim all the turns, or the first end before the last begin.
        pipeline(database_url, redis_url, first_token_ms=4000, inter_token_ms=500) as p,
        _worker(p, database_url, redis_url, state_directory / "log", **more) as worker,
    ):
        turns = [await p.queue(f"c{n}", "Hello there") for n in range(500)]
        most_live, most_threads = 0, 0
        async with asyncio.timeout(90):
            while not await _ended(p, turns):
                states = await _states(p)
                most_live = max(most_live, states.get("running", 0) + states.get("streaming", 0))
                most_threads = max(most_threads, worker.num_threads())
                await p.sweeper.resend_lost_hints()
                await asyncio.sleep(0.5)

        assert await _states(p) == {"answered": 500}
        assert most_live >= 400
        assert most_threads <= 16
        assert {p.calls(turn) for turn in turns} == {(1, 0)}


async def test_a_full_process_takes_no_more_and_loses_nothing(
    database_url: str, redis_url: str, state_directory: Path
) -> None:
    """With room for 5, a worker never carries more than 5 turns, and all 40 are answered in the end."""
    async with (
        pipeline(database_url, redis_url, first_token_ms=100) as p,
        _worker(p, database_url, redis_url, state_directory / "log", FAIRLEAD_WORKER_CAPACITY="5"),
    ):
        turns = [await p.queue(f"c{n}", "Hello there") for n in range(40)]
        most_live = 0
        async with asyncio.timeout(60):
            while not await _ended(p, turns):
                states = await _states(p)
                most_live = max(most_live, sum(states.get(s, 0) for s in ("running", "fallback", "streaming")))
                await asyncio.sleep(0.02)

        assert await _states(p) == {"answered": 40}
        assert 1 <= most_live <= 5


async def test_sigterm_lets_the_streams_under_way_finish(
    database_url: str, redis_url: str, state_directory: Path
) -> None:
    """A draining worker takes nothing new, finishes what it streams, and hands waiting hints back."""
    async with (
        pipeline(database_url, redis_url, first_token_ms=300, inter_token_ms=10) as p,
        _worker(p, database_url, redis_url, state_directory / "log", FAIRLEAD_WORKER_CAPACITY="4") as worker,
    ):
        turns = [await p.queue(f"c{n}", "Hello there") for n in range(12)]
        await until(lambda: _running(p), seconds=30)
        worker.send_signal(signal.SIGTERM)
        await until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, seconds=30)

        states = await _states(p)
        assert set(states) == {"answered", "queued"}
        assert states["answered"] >= 4
        assert not await p.query("SELECT 1 FROM turns WHERE state = 'truncated'")

        async with _worker(p, database_url, redis_url, state_directory / "log2"):
            for turn in turns:
                await p.query("UPDATE turns SET hinted_at = hinted_at - interval '1 minute' WHERE state = 'queued'")
                await p.sweeper.resend_lost_hints()
                await until(lambda turn=turn: _ended(p, [turn]), seconds=30)
        assert await _states(p) == {"answered": 12}


async def _running(p: Pipeline) -> bool:
    return (await _states(p)).get("running", 0) + (await _states(p)).get("streaming", 0) >= 4
