"""Connections with bounded waits: a frozen Redis costs seconds, never a hang."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def create_redis(url: str, *, connections: int = 16) -> Redis:
    """Return a client that decodes to text, waits its turn for a connection and repeats nothing by itself."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=2,
        socket_timeout=2,
        socket_connect_timeout=2,
        socket_keepalive=True,
        health_check_interval=15,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)
