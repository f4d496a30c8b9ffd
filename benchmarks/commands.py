"""What the system asks, by name: the statements of the ledger, and each command as Redis hears it."""

import asyncio
import importlib
import pkgutil
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from redis.asyncio import Redis
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from infra import postgres

_KEYS_FROM: Final = 3
"""EVALSHA, digest, number of keys, keys…, arguments…"""

_VERBS: Final = frozenset({"arm", "append", "rewrite", "seal", "finish"})
"""Of the frame log."""


def known_statements() -> Mapping[str, str]:
    """Return the name of each statement of the ledger, as `module.constant`, by the text its driver sends."""
    driver = dialect()
    known: dict[str, str] = {}
    for module in pkgutil.iter_modules(postgres.__path__):
        for constant, value in vars(importlib.import_module(f"{postgres.__name__}.{module.name}")).items():
            if isinstance(value, TextClause):
                known.setdefault(str(value.compile(dialect=driver)), f"{module.name}.{constant.strip('_').lower()}")
    return known


@asynccontextmanager
async def redis_commands(url: str) -> AsyncGenerator["Counter[str]"]:
    """Count commands while the context lasts. What a script calls is part of it, and a script goes by its verb."""
    counts: Counter[str] = Counter()
    async with Redis.from_url(url, decode_responses=True) as redis, redis.monitor() as monitor:
        listening = asyncio.create_task(_listen(cast("Any", monitor), counts), name="redis-monitor")
        try:
            yield counts
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _listen(monitor: Any, counts: "Counter[str]") -> None:
    while True:
        heard: Mapping[str, str] = await monitor.next_command()
        if heard["client_type"] != "lua":
            counts[_name(heard["command"])] += 1


def _name(command: str) -> str:
    words = command.split(" ")
    name = words[0].lower()
    if name != "evalsha":
        return name
    verb = words[_KEYS_FROM + int(words[2])] if len(words) > _KEYS_FROM + int(words[2]) else ""
    return f"script {verb}" if verb in _VERBS else "script of Celery"
