"""What the routes share, composed in `process`."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import HTTPConnection

from infra.embeddings.embedder import Embedder
from infra.kafka.producer import EventProducer
from infra.postgres.tenants import Tenants
from infra.redis.frame_log import FrameLog
from infra.redis.hub import Hub
from producers.admission import Admission, RecentTurns
from producers.gateway.tokens import WidgetTokens
from producers.gateway.watch import Watcher
from producers.rate_limit import RateLimit


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One gateway's connections and the objects built on them."""

    engine: AsyncEngine
    redis: Redis
    hub: Hub
    producer: EventProducer
    frames: FrameLog
    tenants: Tenants
    tokens: WidgetTokens
    recent: RecentTurns
    admission: Admission
    watcher: Watcher
    token_limit: RateLimit
    asset_limit: RateLimit
    max_body_bytes: int
    embedder: Embedder | None = None
    """Of knowledge bases; without one each has vectors of its own."""
    public_url: str | None = None
    completion_seconds: float = 180.0
    """How long a chat completion that does not stream may take."""
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process has been told to stop."""


def parts_of(connection: HTTPConnection) -> Parts:
    """Return the parts of the application that serves this connection."""
    return cast("Parts", connection.app.state.parts)


PartsOf = Annotated[Parts, Depends(parts_of)]
