"""Alive, ready, and the numbers. Health means progress, not an open port."""

import asyncio
import time
from typing import Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from redis.exceptions import RedisError
from sqlalchemy import text
from starlette.responses import JSONResponse, Response

from infra.postgres.statements import LedgerUnavailable, row
from infra.telemetry.metrics import render_metrics
from producers.gateway.parts import Parts, PartsOf
from producers.gateway.strict_json import StrictJsonRoute

STUCK_SECONDS: Final = 15.0
PROBE_SECONDS: Final = 2.0

State = Literal["ok", "down"]

router = APIRouter(tags=["operations"], route_class=StrictJsonRoute)


class Health(BaseModel):
    """Whether the process makes progress."""

    status: State
    parts: dict[str, State]


class Readiness(BaseModel):
    """Whether the process can do its work, and what it lacks."""

    status: State
    dependencies: dict[str, State]


@router.get("/healthz", operation_id="health", summary="Is the process alive?", responses={503: {"model": Health}})
async def healthz(parts: PartsOf) -> Response:
    """Answer 200 while the event loop turns and the subscription's reader moves."""
    before = time.monotonic()
    await asyncio.sleep(0)
    states: dict[str, State] = {
        "event_loop": _state(time.monotonic() - before < STUCK_SECONDS),
        "hub": _state(parts.hub.seconds_since_progress < STUCK_SECONDS),
    }
    return _answer(Health(status=_all(states), parts=states))


@router.get("/readyz", operation_id="readiness", summary="Can the process work?", responses={503: {"model": Readiness}})
async def readyz(parts: PartsOf) -> Response:
    """Answer 200 when every dependency answers and the process is not stopping."""
    database, redis = await asyncio.gather(_database(parts), _redis(parts))
    states: dict[str, State] = {
        "kafka": _state(parts.producer.ready),
        "redis": _state(redis and parts.hub.connected),
        "postgres": _state(database),
        "accepting": _state(not parts.draining.is_set()),
    }
    return _answer(Readiness(status=_all(states), dependencies=states))


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    """Return every number as Prometheus reads it."""
    body, content_type = render_metrics()
    return Response(body, headers={"Content-Type": content_type})


async def _database(parts: Parts) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await row(parts.engine, text("SELECT 1 AS one"), {}) is not None
    except (LedgerUnavailable, TimeoutError):
        return False


async def _redis(parts: Parts) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return bool(await parts.redis.ping())
    except (RedisError, OSError, TimeoutError):
        return False


def _state(fine: bool) -> State:
    return "ok" if fine else "down"


def _all(states: dict[str, State]) -> State:
    return _state(all(state == "ok" for state in states.values()))


def _answer(body: Health | Readiness) -> Response:
    return JSONResponse(body.model_dump(), status_code=200 if body.status == "ok" else 503)
