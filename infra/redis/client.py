"""Connections with bounded waits: a frozen Redis costs seconds, never a hang."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisGone


def create_redis(url: str, *, connections: int = 16) -> Redis:
    """Return a client that decodes to text and waits its turn for a connection.

    A command whose connection broke is sent once more on a fresh one: after a restart of Redis every connection of
    the pool is such. All our commands may be repeated. A command that timed out is not: the server has had its time.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=2,
        socket_timeout=2,
        socket_connect_timeout=2,
        socket_keepalive=True,
        health_check_interval=15,
        decode_responses=True,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisGone,)),
    )
    return Redis.from_pool(pool)
