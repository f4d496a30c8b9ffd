"""Lanes that skip their primary, as operators see and set them. They are the whole installation's, not a tenant's."""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

import structlog
from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from infra.postgres.breakers import Breaker, read_breakers, set_breaker
from producers.gateway.auth import InstallationOperator, Operator
from producers.gateway.documents import error_responses
from producers.gateway.parts import PartsOf
from producers.gateway.strict_json import StrictJsonRoute
from schemas.agents import ANSWERING, Lane, lane_of

router = APIRouter(tags=["operations"], route_class=StrictJsonRoute)

MOST_AWAY_SECONDS: Final = 3600.0

_LANES: Final = tuple(lane_of(agent) for agent in ANSWERING)
"""The lanes with a primary; the way out of the others has only a fallback."""

_log = structlog.stdlib.get_logger()

LanePath = Annotated[
    str, Path(pattern=rf"^({'|'.join(lane.replace('.', '[.]') for lane in _LANES)})$", examples=["agent.discovery"])
]


class BreakerState(BaseModel):
    """One lane, as workers know it within about a second."""

    lane: str
    state: Literal["closed", "probing", "open"]
    """What is measured. `open`: turns skip the primary; `probing`: one of them is asking it."""
    forced: Literal["closed", "open"] | None = None
    """Set by hand; wins over what is measured."""
    since: datetime | None = None
    retry_at: datetime | None = None
    """From then on one turn at a time asks the primary of an open lane."""
    away_until: datetime | None = None
    """Until then a drill lets every call of the primary fail without making it."""
    reason: str | None = None
    changed_by: str | None = None


class BreakerList(BaseModel):
    """Every lane that has a primary."""

    breakers: list[BreakerState]


class BreakerChange(BaseModel):
    """What shall be otherwise from now on. What is absent stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"forced": "open", "reason": "upgrade"}]})

    forced: Literal["open", "closed"] | None = None
    """`open` skips the primary, `closed` asks it, whatever is measured; null lets it be measured again."""
    away_seconds: Annotated[float, Field(ge=0, le=MOST_AWAY_SECONDS)] | None = None
    """For so long calls of the primary fail without being made; ends by itself, or with 0."""
    reason: Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")] = ""

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if "forced" not in self.model_fields_set and self.away_seconds is None:
            raise ValueError("give 'forced' or 'away_seconds'")
        return self


@router.get(
    "/v1/breakers",
    operation_id="listBreakers",
    summary="See which lanes skip their primary",
    responses=error_responses(401, 403, 503),
)
async def list_breakers(principal: Operator, parts: PartsOf) -> BreakerList:
    """Return every lane with a primary. Needs the scope `operator`."""
    del principal
    known = {breaker.lane: breaker for breaker in await read_breakers(parts.engine)}
    return BreakerList(breakers=[_state(lane, known.get(lane)) for lane in _LANES])


@router.put(
    "/v1/breakers/{lane}",
    operation_id="setBreaker",
    summary="Set a lane's breaker by hand, or take its primary away for a drill",
    responses=error_responses(400, 401, 403, 408, 413, 422, 503),
)
async def put_breaker(
    lane: LanePath, body: BreakerChange, principal: InstallationOperator, parts: PartsOf
) -> BreakerState:
    """Change a lane's breaker for every tenant; workers notice within about a second.

    Needs the scope `installation`. Who did it is written down with it.
    """
    chosen = Lane(lane)
    await set_breaker(
        parts.engine,
        chosen,
        forced=(body.forced or "auto") if "forced" in body.model_fields_set else None,
        away=body.away_seconds,
        reason=body.reason,
        tenant=principal.tenant,
        operator=principal.key_id or "",
    )
    _log.info("breaker_set", lane=lane, forced=body.forced, away_seconds=body.away_seconds, key_id=principal.key_id)
    known = {breaker.lane: breaker for breaker in await read_breakers(parts.engine)}
    return _state(chosen, known.get(chosen))


def _state(lane: Lane, known: Breaker | None) -> BreakerState:
    if known is None:
        return BreakerState(lane=lane.value, state="closed")
    return BreakerState(
        lane=lane.value,
        state="probing" if known.state == "open" and known.probe_in else known.state,
        forced=known.forced,
        since=known.since,
        retry_at=known.retry_at,
        away_until=known.away_until,
        reason=known.reason,
        changed_by=known.changed_by,
    )
