"""A filter's SQL runs on the real database and chooses what the filter says."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.engine import create_engine
from infra.postgres.letter_views import Owner, list_letters
from infra.postgres.statements import rows
from schemas.letter_filter import LetterFilter, Not, parse_filter
from tests.unit.schemas.test_letter_filter import filters

_WRITE = text("""
WITH t AS (
    INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, body_sha256, kafka_topic,
                       kafka_partition, kafka_offset, state, deadline_at, done_at)
    SELECT gen_random_uuid(), 'acme', 'c1', g, 'web_chat', 'hi', '', 't', 0, g, 'bounded', now(), now()
    FROM generate_series(1, 3) g RETURNING turn_id, seq
), a AS (
    INSERT INTO attempts (turn_id, ordinal, epoch, model) SELECT turn_id, 1, 1, 'tiny' FROM t WHERE seq = 1
)
INSERT INTO dead_letters (turn_id, tenant_id, conversation_id, reason, stage, agent, times, created_at)
SELECT turn_id, 'acme', 'c1', CASE seq WHEN 1 THEN 'worker_lost' ELSE 'queue_deadline' END, 'queued',
       CASE seq WHEN 3 THEN NULL ELSE 'discovery' END, seq, clock_timestamp() - make_interval(hours => seq)
FROM t
""")


@asynccontextmanager
async def three_letters(url: str) -> AsyncGenerator[AsyncEngine]:
    """Three letters: of 1, 2 and 3 hours, `times` the same; the third has no agent."""
    engine = create_engine(url)
    await rows(engine, text("INSERT INTO tenants (tenant_id, name) VALUES ('acme', 'Acme')"), {})
    await rows(engine, text("INSERT INTO conversations (tenant_id, conversation_id) VALUES ('acme', 'c1')"), {})
    await rows(engine, _WRITE, {})
    yield engine
    await engine.dispose()


async def chosen(engine: AsyncEngine, one: LetterFilter) -> list[int]:
    found = await list_letters(engine, Owner("acme", installation=False), one, after=None, limit=9)
    return [letter.times for letter in found]


@pytest.mark.parametrize(
    ("where", "times"),
    [
        ("reason=worker_lost", [1]),
        ("reason in (worker_lost, queue_deadline)", [1, 2, 3]),
        ("agent=discovery", [1, 2]),
        ("agent!=discovery", [3]),
        ("not agent=discovery", [3]),
        ("not (agent=discovery and times>1)", [1, 3]),
        ("created > 90m", [1]),
        ("created < 90m and created >= 150m", [2]),
        ("times in (1, 3) and state=unanswered", [1, 3]),
        ("model=tiny or times=3", [1, 3]),
        ("channel=web_chat and conversation='c1'", [1, 2, 3]),
        ("conversation=\"c1' or '1'='1\"", []),
        ("turn=00000000-0000-0000-0000-000000000000", []),
        ("created < 2020-01-01", []),
    ],
)
async def test_the_letters_meant_are_found(database_url: str, where: str, times: list[int]) -> None:
    """Each comparison and each joining means in SQL what it means in words; a missing value is not another one."""
    async with three_letters(database_url) as engine:
        assert await chosen(engine, parse_filter(where)) == times


def test_every_filter_runs_and_splits_the_letters(database_url: str) -> None:
    """Whatever the filter, PostgreSQL takes it, and it and its opposite choose each letter exactly once."""

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(filters)
    def splits(one: LetterFilter) -> None:
        async def both() -> list[int]:
            return await chosen(engine, one) + await chosen(engine, Not(one))

        assert sorted(loop.run_until_complete(both())) == [1, 2, 3]

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        letters = three_letters(database_url)
        engine = runner.run(letters.__aenter__())
        splits()
        runner.run(letters.__aexit__(None, None, None))
