"""A worker full of turns dies."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.processes import AGENTS
from cli.simulated import set_fault
from infra.postgres.engine import create_engine
from tests.chaos.checker import violations
from tests.chaos.evidence import gathered
from tests.chaos.trial import LOGS, Broken, broken_system, settled
from tests.chaos.users import Users
from tests.support.pipeline import until

pytestmark = pytest.mark.timeout(240)

LEASE: Final = 5.0
STREAMING: Final = 60
UNSEEN: Final = 40
LINE: Final = "My order screen is not working since this morning"
"""For a lane of the worker that dies; rescues are another's."""


def test_a_hundred_turns_of_a_killed_worker_end_within_the_lease_and_five_seconds(state_directory: Path) -> None:
    """What was visible stays, what was not is answered by the frontier, and every watcher reads one whole stream."""
    log, deadlines = LOGS / "recovery.log", {"lease": LEASE}
    with broken_system(state_directory, log=log, deadlines=deadlines, first_token=30.0) as broken:
        asyncio.run(_recovery(broken))


async def _recovery(broken: Broken) -> None:
    found = broken.system.endpoints
    assert found.simulators is not None
    frontier = found.simulators.openai
    async with AsyncExitStack() as stack:
        engine = create_engine(broken.servers.database, pool_size=1)
        stack.push_async_callback(engine.dispose)
        crowd = await stack.enter_async_context(Users(gateway=found.gateway, key=found.api_key, seed=1))
        watchers = await stack.enter_async_context(asyncio.TaskGroup())
        worker = broken.system.processes[AGENTS]

        set_fault(frontier, "none", first_token_ms=50, inter_token_ms=500)
        await _ask(crowd, watchers, range(STREAMING))
        await until(lambda: _live(engine, worker, "streaming", STREAMING), seconds=40)
        set_fault(frontier, "none", first_token_ms=25_000)
        await _ask(crowd, watchers, range(STREAMING, STREAMING + UNSEEN))
        await until(lambda: _live(engine, worker, "running", UNSEEN), seconds=20)
        assert await _live(engine, worker, "streaming", STREAMING)

        set_fault(frontier, "none", first_token_ms=50, inter_token_ms=5)
        os.kill(worker, signal.SIGKILL)
        killed = time.time()
        await settled(broken.servers.database, [promise.turn for promise in crowd.promises])

    evidence = await gathered(broken.servers.database, found.simulators, crowd.promises, crowd.transcripts)
    assert violations(evidence) == []
    assert Counter(turn.state for turn in evidence.turns) == {"truncated": STREAMING, "answered": UNSEEN}
    assert len(crowd.transcripts) == STREAMING + UNSEEN
    took = [turn.ended.timestamp() - killed for turn in evidence.turns if turn.ended is not None]
    assert 0 < min(took) <= max(took) < LEASE + 5.0 * _crowding()


def _crowding() -> float:
    """Return how many processes want each core, 1 at least: what else runs beside a test makes everything slower."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


async def _ask(crowd: Users, watchers: asyncio.TaskGroup, numbers: Sequence[int]) -> None:
    """Send one message in each of so many conversations, and watch the answers."""
    for turn in await asyncio.gather(*(crowd.post(f"c-{number}", 0, LINE) for number in numbers)):
        assert turn is not None
        watchers.create_task(crowd.watch(turn, "the user"))


async def _live(engine: AsyncEngine, worker: int, state: str, count: int) -> bool:
    """Whether the worker carries so many turns in this state."""
    statement = text("SELECT count(*) FROM turns WHERE state = :state AND owner LIKE :owner")
    async with engine.connect() as connection:
        found = await connection.execute(statement, {"state": state, "owner": f"%:{worker}"})
        return int(found.scalar_one()) == count
