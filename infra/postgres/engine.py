"""The connection pool. Transactions are short: no connection is held across a model call or a Redis await."""

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def create_engine(url: str, *, pool_size: int = 10, name: str = "fairlead", pool_timeout: float = 2) -> AsyncEngine:
    """Return an engine whose statements commit by themselves unless a transaction is begun.

    Most transitions are one statement, so autocommit saves two of three round trips.

    Args:
        url: `postgresql+asyncpg://…`.
        pool_size: connections at most. No more for a while: opening one costs several round trips.
        name: shown in `pg_stat_activity`.
        pool_timeout: seconds to wait for a connection. Short where a caller can be refused, longer where work that
            is already accepted would have to be found again.
    """
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        pool_recycle=1800,
        isolation_level="AUTOCOMMIT",
        connect_args={
            "timeout": 5,
            "command_timeout": 10,
            "server_settings": {
                "application_name": name,
                "statement_timeout": "5000",
                "idle_in_transaction_session_timeout": "10000",
                "jit": "off",
            },
        },
    )
