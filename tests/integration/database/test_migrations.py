"""The schema goes up, down and up again, also when several processes start at once."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from infra.postgres.engine import create_engine
from infra.postgres.migrate import pending, upgrade_async

_TURN = "00000000-0000-0000-0000-000000000001"
_ONE_TURN = (
    "INSERT INTO tenants (tenant_id, name) VALUES ('acme', 'Acme')",
    "INSERT INTO conversations (tenant_id, conversation_id) VALUES ('acme', 'c1')",
    f"""
    INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, body_sha256,
                       kafka_topic, kafka_partition, kafka_offset, state, deadline_at)
    VALUES ('{_TURN}', 'acme', 'c1', 1, 'test', 'hi', '', 't', 0, 0, 'queued', now())
    """,
)


async def _tables(url: str) -> set[str]:
    engine = create_engine(url)
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        names = {str(name) for (name,) in found}
    await engine.dispose()
    return names


async def test_the_schema_walks_up_down_and_up(empty_database_url: str) -> None:
    """After head, base leaves nothing but the version table, and head again gives the same tables."""
    assert await pending(empty_database_url)
    await upgrade_async(empty_database_url)
    first = await _tables(empty_database_url)
    assert not await pending(empty_database_url)

    await upgrade_async(empty_database_url, "base")
    assert await _tables(empty_database_url) == {"alembic_version"}

    await upgrade_async(empty_database_url)
    assert await _tables(empty_database_url) == first
    assert {"turns", "attempts", "outbox", "dead_letters", "idempotency"} <= first


async def test_five_processes_migrating_at_once_do_it_once(empty_database_url: str) -> None:
    """Starting several processes on a new database is safe."""
    await asyncio.gather(*(upgrade_async(empty_database_url) for _ in range(5)))
    assert not await pending(empty_database_url)


async def test_a_third_attempt_is_impossible(database_url: str) -> None:
    """The ledger itself refuses a second primary, a second fallback, or anything beyond."""
    engine = create_engine(database_url)
    async with engine.connect() as connection:
        for statement in _ONE_TURN:
            await connection.execute(text(statement))
        reserve = text(f"INSERT INTO attempts (turn_id, ordinal, epoch, model) VALUES ('{_TURN}', :o, 1, 'm')")
        for ordinal in (1, 2):
            await connection.execute(reserve, {"o": ordinal})
        for ordinal in (1, 2, 3, 0):
            with pytest.raises(IntegrityError):
                await connection.execute(reserve, {"o": ordinal})
    await engine.dispose()
