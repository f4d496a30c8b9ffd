"""A worker process that is to run the fine-tuned model itself and cannot: it is not installed, and not here."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from infra.embedded.process import free_port
from schemas.agents import Lane
from schemas.ids import TurnId
from tests.support.children import child
from tests.support.pipeline import Pipeline, pipeline, until

LANES = ("--lane", Lane.DISCOVERY.value, "--lane", Lane.FRONTIER_FALLBACK.value)
ABSENT = "a-model-that-is-nowhere"


@dataclass(frozen=True)
class Worker:
    """A worker's port, and what it has logged."""

    port: int
    log: Path

    async def health(self) -> tuple[int, dict[str, Any]]:
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{self.port}/healthz") as answer:
            return answer.status, await answer.json()

    async def numbers(self) -> dict[str, float]:
        """Return its loads, and one number for each state of its slot."""
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
        samples = [sample for family in families for sample in family.samples]
        found = {s.labels["state"]: s.value for s in samples if s.name == "fairlead_local_model_state"}
        found |= {s.name: s.value for s in samples if s.name == "fairlead_local_model_loads_total"}
        return found

    def times_logged(self, event: str) -> int:
        return len(re.findall(rf'"event": ?"{event}"', self.log.read_text()))

    async def up(self) -> bool:
        try:
            return (await self.health())[0] == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def _worker(p: Pipeline, database_url: str, redis_url: str, log: Path) -> AsyncGenerator[Worker]:
    worker = Worker(free_port(), log)
    env = {
        "FAIRLEAD_DATABASE": database_url,
        "FAIRLEAD_REDIS": redis_url,
        "FAIRLEAD_DISCOVERY_DIALECT": "local",
        "FAIRLEAD_LOCAL_MODEL": ABSENT,
        "FAIRLEAD_FRONTIER_BASE_URL": p.openai.base_url,
        "FAIRLEAD_METRICS_PORT": str(worker.port),
        "FAIRLEAD_LOG_FORMAT": "json",
    }
    async with child("agents", *LANES, env=env, log=log):
        await until(worker.up, seconds=60)
        yield worker


async def _answered(p: Pipeline, turns: list[TurnId]) -> None:
    """Wait until all have ended, and see that each was answered by the frontier, with one call."""

    async def over() -> bool:
        rows = await p.query("SELECT 1 FROM turns WHERE turn_id = ANY(CAST(:t AS uuid[])) AND done_at IS NULL", t=turns)
        return not rows

    await until(over, seconds=60)
    ends = await p.query("SELECT state, source FROM turns WHERE turn_id = ANY(CAST(:t AS uuid[]))", t=turns)
    assert {(end["state"], end["source"]) for end in ends} == {("answered", "fallback")}
    assert {p.calls(turn) for turn in turns} == {(0, 1)}


async def _attempts(p: Pipeline, turns: list[TurnId]) -> set[tuple[tuple[object, ...], ...]]:
    """Return the different ways in which the turns' attempts are in the ledger."""
    rows = await p.query(
        "SELECT turn_id::text AS turn, ordinal, state, error FROM attempts"
        " WHERE turn_id = ANY(CAST(:t AS uuid[])) ORDER BY ordinal",
        t=turns,
    )
    return {tuple((r["ordinal"], r["state"], r["error"]) for r in rows if r["turn"] == turn) for turn in turns}


async def _notes(p: Pipeline, turns: list[TurnId]) -> set[object]:
    """Return the notes that claims of the turns have left."""
    rows = await p.query(
        "SELECT note FROM turn_events WHERE turn_id = ANY(CAST(:t AS uuid[])) AND from_state = 'queued'", t=turns
    )
    return {row["note"] for row in rows}


FELL_BACK = ((1, "failed", "load_failure"), (2, "succeeded", None))
SKIPPED = ((2, "succeeded", None),)


async def test_a_model_that_fails_to_load_is_failed_for_the_process(
    database_url: str, redis_url: str, state_directory: Path
) -> None:
    """One load for any number of turns, then or later; the frontier answers all; a new process tries once more."""
    async with pipeline(database_url, redis_url) as p:
        async with _worker(p, database_url, redis_url, state_directory / "first") as worker:
            assert (await worker.health())[1]["status"] == "ok"
            assert await worker.numbers() == _in("unloaded", loads=0)

            at_once = await asyncio.gather(*(p.queue(f"c{n}", "Hello there") for n in range(30)))
            await _answered(p, list(at_once))
            assert FELL_BACK in await _attempts(p, list(at_once)) <= {FELL_BACK, SKIPPED}
            assert await worker.numbers() == _in("failed", loads=1)

            later = [await p.queue(f"c{n}", "We count stock by hand") for n in range(10)]
            await _answered(p, later)
            assert await _attempts(p, later) == {SKIPPED}
            assert await _notes(p, later) == {"load_failure"}
            assert await worker.numbers() == _in("failed", loads=1)
            assert [worker.times_logged(f"local_model_{what}") for what in ("loading", "failed", "ready")] == [1, 1, 0]

            status, body = await worker.health()
            assert (status, body["status"], body["parts"]["leases"]) == (200, "degraded", None)
            assert "cannot be used by this process" in body["parts"]["discovery model"]

        async with _worker(p, database_url, redis_url, state_directory / "second") as worker:
            assert (await worker.health())[1]["status"] == "ok"
            again = [await p.queue("d1", "Hello there")]
            await _answered(p, again)
            assert await _attempts(p, again) == {FELL_BACK}
            assert await _notes(p, again) == {None}
            assert await worker.numbers() == _in("failed", loads=1)


def _in(state: str, *, loads: int) -> dict[str, float]:
    """Return the numbers of a worker whose slot is in `state`."""
    states = dict.fromkeys(("unloaded", "loading", "ready", "failed"), 0.0)
    return states | {state: 1.0, "fairlead_local_model_loads_total": float(loads)}
