"""Bringing a database to the schema this version needs."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

import migrations

_LOCK = 0x46_41_49_52
"""Key of the advisory lock: several processes may start at once, one migrates."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(next(iter(migrations.__path__)))))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection, target: str) -> None:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
    connection.commit()
    try:
        if target == "base":
            command.downgrade(_config(connection), target)
        else:
            command.upgrade(_config(connection), target)
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
        connection.commit()


async def upgrade_async(database_url: str, target: str = "head") -> None:
    """Migrate the database to `target` (`head`, or `base` to take everything down)."""
    engine = create_async_engine(database_url, pool_size=1)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade, target)
    finally:
        await engine.dispose()


def upgrade(database_url: str, target: str = "head") -> None:
    """Migrate from code that runs no event loop."""
    asyncio.run(upgrade_async(database_url, target))


async def pending(database_url: str) -> bool:
    """Tell whether the database lacks a migration of this version."""

    def current(connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    engine = create_async_engine(database_url, pool_size=1)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(current) != ScriptDirectory.from_config(_config()).get_current_head()
    finally:
        await engine.dispose()
