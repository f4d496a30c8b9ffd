"""A database with two tenants, and their knowledge bases."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.engine import create_engine
from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.tenants import Tenants


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Connections to a database with the tenants `acme` and `umbra`."""
    engine = create_engine(database_url, pool_size=4)
    tenants = Tenants(engine, pepper=SecretStr("pepper"))
    await tenants.create("acme", name="Acme")
    await tenants.create("umbra", name="Umbra")
    yield engine
    await engine.dispose()


@pytest.fixture
def knowledge(engine: AsyncEngine) -> KnowledgeBase:
    """The knowledge bases there."""
    return KnowledgeBase(engine)
