"""Composes a gateway from the settings and serves it until told to stop."""

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import FrameType
from typing import Final

import structlog
import uvicorn
import uvloop
from fastapi import APIRouter
from starlette.types import ASGIApp

from infra.crash_points import arm
from infra.embeddings.configured import configured_embedder
from infra.kafka.producer import EventProducer
from infra.postgres.engine import create_engine
from infra.postgres.tenants import Tenants
from infra.redis.client import create_redis
from infra.redis.frame_log import FrameLog
from infra.redis.hub import Hub
from infra.settings import Settings
from infra.telemetry.logs import configure_logs
from infra.telemetry.loop_lag import watch_loop_lag
from infra.telemetry.tracing import configure_tracing
from producers.admission import Admission, RecentTurns
from producers.gateway.app import create_app
from producers.gateway.parts import Parts
from producers.gateway.socket_messages import MAX_MESSAGE_BYTES
from producers.gateway.tokens import WidgetTokens
from producers.gateway.watch import Watcher
from producers.rate_limit import RateLimit

LAME_DUCK_SECONDS: Final = 0.5
"""Between the first sign of stopping (not ready, streams let go) and refusing connections."""

GRACEFUL_SECONDS: Final = 10
USER_TIMEOUT_MS: Final = 10_000
"""A peer that acknowledges nothing for so long is gone, whatever it leaves in our buffers."""

TOKENS_PER_MINUTE: Final = 30
"""Widget tokens for one address through one site key."""

ASSETS_PER_MINUTE: Final = 600
"""Files of answers for one address; a proxy in front is one address, unless it says for whom it asks."""

_log = structlog.stdlib.get_logger()


def run(settings: Settings, *, more: Sequence[APIRouter] = ()) -> None:
    """Serve until SIGTERM or SIGINT."""
    arm()
    configure_logs("gateway", settings)
    stop_tracing = configure_tracing("gateway", settings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, more=more))
    finally:
        stop_tracing()


async def serve(settings: Settings, *, more: Sequence[APIRouter] = ()) -> None:
    """Compose, listen, serve, drain."""
    async with compose(settings) as parts:
        listener = listening_socket(settings.gateway_host, settings.gateway_port)
        server = Server(server_config(create_app(parts, more=more)), parts.draining)
        _log.info("gateway_listening", port=listener.getsockname()[1])
        await server.serve(sockets=[listener])
        _log.info("gateway_stopped")


@asynccontextmanager
async def compose(settings: Settings) -> AsyncGenerator[Parts]:
    """Yield the parts of a gateway, started; dependencies that are down are connected to when they come up."""
    parts = build(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(parts.engine.dispose)
        stack.push_async_callback(parts.redis.aclose)
        stack.push_async_callback(parts.hub.aclose)
        await parts.hub.start()
        stack.push_async_callback(parts.producer.stop)
        await parts.producer.start()
        lag = asyncio.create_task(watch_loop_lag(), name="loop-lag")
        stack.callback(lag.cancel)
        yield parts


def build(settings: Settings) -> Parts:
    """Return the parts of a gateway; nothing is connected to yet."""
    engine = create_engine(settings.database.get_secret_value(), pool_size=20, name="fairlead-gateway")
    redis = create_redis(settings.redis, connections=32)
    hub = Hub(settings.redis)
    producer = EventProducer(bootstrap=settings.kafka, client_id="fairlead-gateway")
    frames, recent, draining = FrameLog(redis), RecentTurns(), asyncio.Event()
    per_minute = settings.rate_limit_per_minute
    return Parts(
        engine=engine,
        redis=redis,
        hub=hub,
        producer=producer,
        frames=frames,
        tenants=Tenants(engine, pepper=settings.key_pepper),
        tokens=WidgetTokens(settings.widget_secret, seconds=settings.widget_token_seconds),
        recent=recent,
        admission=Admission(
            engine=engine,
            producer=producer,
            recent=recent,
            tenant_limit=RateLimit(per_minute=per_minute),
            visitor_limit=RateLimit(per_minute=per_minute / 10),
        ),
        watcher=Watcher(engine=engine, hub=hub, frames=frames, recent=recent, draining=draining),
        token_limit=RateLimit(per_minute=TOKENS_PER_MINUTE),
        asset_limit=RateLimit(per_minute=ASSETS_PER_MINUTE),
        max_body_bytes=settings.max_body_bytes,
        embedder=configured_embedder(settings),
        public_url=settings.public_url,
        draining=draining,
    )


def server_config(app: ASGIApp) -> uvicorn.Config:
    """Return how the gateway is served."""
    return uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        # Frames are small; compressing each costs more than it saves, and memory for every socket.
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )


class Server(uvicorn.Server):
    """Says that it stops before it stops."""

    def __init__(self, config: uvicorn.Config, draining: asyncio.Event) -> None:
        super().__init__(config)
        self._draining = draining
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """At the first signal turn unready and let streams go, a moment later stop; at the second stop now."""
        if self._draining.is_set():
            super().handle_exit(sig, frame)
            return
        self._loop.call_soon_threadsafe(self._draining.set)
        self._loop.call_soon_threadsafe(self._loop.call_later, LAME_DUCK_SECONDS, self._stop)

    def _stop(self) -> None:
        # Not the signal handler: it would raise the signal again once everything has been closed in order.
        self.should_exit = True


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a bound, listening socket whose connections notice a peer that vanished."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    listener.bind((host, port))
    listener.listen(2048)
    listener.setblocking(False)
    listener.set_inheritable(True)
    return listener
