"""The dead-letter process for real: killed between the ledger and the wake-up, and replaced."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from infra.crash_points import STATUS, VARIABLE
from infra.policy import load_policy
from infra.postgres.replays import create, load_job
from tests.support.children import child
from tests.support.dead import OWNER, StandIn, asked_for, dead_letters
from tests.support.pipeline import TENANT, pipeline

LETTERS = 60


def _environment(state: Path, database: str, redis: str, kafka: str) -> dict[str, str]:
    policy = load_policy().model_dump(mode="json")
    policy["deadlines"]["lease"] = 1.0
    path = state / "policy.yaml"
    path.write_text(yaml.safe_dump(policy), encoding="utf-8")
    return {
        "FAIRLEAD_POLICY": str(path),
        "FAIRLEAD_DATABASE": database,
        "FAIRLEAD_REDIS": redis,
        "FAIRLEAD_KAFKA": kafka,
        "FAIRLEAD_KAFKA_FETCH_MAX_WAIT_MS": "10",
    }


def _dies(env: Mapping[str, str], log: Path) -> int:
    """Run the process until it ends by itself; returns its status."""
    with log.open("ab") as out:
        command = [sys.executable, "-m", "cli.main", "serve", "dead-letters"]
        return subprocess.run(command, env={**os.environ, **env}, stdout=out, stderr=out, timeout=90).returncode


async def test_a_process_killed_after_starting_replays_leaves_none_by_halves(
    database_url: str, redis_url: str, fresh_kafka: str, state_directory: Path
) -> None:
    """It dies with its batch in the ledger and nobody told; the next one ends the job, each letter answered once."""
    async with pipeline(database_url, redis_url) as p:
        await dead_letters(p, [f"dead-{n}" for n in range(LETTERS)])
        job = await create(p.engine, OWNER, asked_for(rate=20.0), operator="key-1")
        env, log = _environment(state_directory, database_url, redis_url, fresh_kafka), state_directory / "log"

        crash = {VARIABLE: "replay_after_insert:3"}
        assert await asyncio.to_thread(_dies, env | crash, log) == STATUS
        begun = len(await p.query("SELECT 1 FROM turns WHERE replay_of IS NOT NULL"))
        assert 0 < begun < LETTERS

        by = StandIn(p)
        async with child("dead-letters", env=env, log=log), asyncio.timeout(60):
            while (found := await load_job(p.engine, tenant=TENANT, job_id=job)) is None or found.state == "running":
                if not await by.answer_all():
                    await asyncio.sleep(0.05)

        assert (found.state, found.answered, found.failed, found.skipped) == ("finished", LETTERS, 0, 0)
        assert len(by.settled) == len(set(by.settled)) == LETTERS
