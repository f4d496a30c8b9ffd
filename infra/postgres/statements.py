"""Running one statement: most transitions are a single round trip. A few need a transaction of several."""

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from sqlalchemy import RowMapping, TextClause
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class LedgerUnavailable(Exception):
    """PostgreSQL does not answer. What was asked may or may not have happened; ask again before acting."""


class LedgerRefuses(Exception):
    """PostgreSQL has no form for a value. Nothing happened, and asking again changes nothing: leave the value out."""


_REFUSALS: Final = ("22", "54")
"""Classes of SQLSTATE: a value it has no form for, or one past a limit of its own."""


async def rows(engine: AsyncEngine, statement: TextClause, values: Mapping[str, object]) -> Sequence[RowMapping]:
    """Run `statement` and return its rows.

    Raises:
        LedgerUnavailable: no connection, or it broke.
        LedgerRefuses: a value can never be stored.
    """
    with _renamed():
        async with engine.connect() as connection:
            result = await connection.execute(statement, dict(values))
            return result.mappings().all() if result.returns_rows else []


async def row(engine: AsyncEngine, statement: TextClause, values: Mapping[str, object]) -> RowMapping | None:
    """Run `statement` and return its first row, or None."""
    found = await rows(engine, statement, values)
    return found[0] if found else None


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    """Give a connection whose statements happen together, when the context ends, or not at all.

    Raises:
        LedgerUnavailable: no connection, or it broke; whether they happened is not known.
        LedgerRefuses: a value can never be stored. Nothing happened.
    """
    with _renamed():
        async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            yield connection


@contextmanager
def _renamed() -> Generator[None]:
    try:
        yield
    except (OperationalError, PoolTimeout, OSError, TimeoutError) as error:
        raise LedgerUnavailable(f"PostgreSQL does not answer: {type(error).__name__}") from error
    except DBAPIError as error:
        if (str(getattr(error.orig, "sqlstate", None) or ""))[:2] in _REFUSALS:
            raise LedgerRefuses(f"PostgreSQL refuses a value: {type(error.orig).__name__}") from error
        if error.connection_invalidated or type(error) is DBAPIError:
            raise LedgerUnavailable(f"PostgreSQL does not answer: {type(error.orig).__name__}") from error
        raise
