"""Lanes whose primary is skipped: one row a lane that was ever in doubt, the same for every worker and operator.

Each statement is one compare-and-set on the database's clock, so that many workers that conclude the same at once
open a lane once, and one turn in the whole installation probes it at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.audit import AUDIT_SQL, audit_values
from infra.postgres.statements import row, rows
from schemas.agents import Lane
from schemas.policy import BreakerPolicy

Measured = Literal["closed", "open"]

_READ = text("""
SELECT lane, state, since, retry_at, forced, reason, changed_by,
       CASE WHEN away_until > clock_timestamp() THEN away_until END AS away_until,
       greatest(0, extract(epoch FROM retry_at - clock_timestamp()))::float AS retry_in,
       greatest(0, extract(epoch FROM probe_until - clock_timestamp()))::float AS probe_in,
       greatest(0, extract(epoch FROM away_until - clock_timestamp()))::float AS away_in
FROM breakers
""")

_OPEN = text("""
INSERT INTO breakers AS b (lane, state, retry_at, reason, changed_by)
VALUES (:lane, 'open', clock_timestamp() + make_interval(secs => :open), :reason, :actor)
ON CONFLICT (lane) DO UPDATE
SET state = 'open', since = clock_timestamp(), retry_at = excluded.retry_at, probe_until = NULL,
    reason = excluded.reason, changed_by = excluded.changed_by
WHERE b.state = 'closed' AND b.forced IS NULL
RETURNING lane
""")

# The end of the permission is also its name: a probe that reports after it was given to another changes nothing.
_PROBE = text("""
UPDATE breakers SET probe_until = clock_timestamp() + make_interval(secs => :probe)
WHERE lane = :lane AND state = 'open' AND forced IS NULL AND retry_at <= clock_timestamp()
  AND (probe_until IS NULL OR probe_until <= clock_timestamp())
RETURNING probe_until
""")

_PROBE_ANSWERED = text("""
UPDATE breakers SET state = 'closed', since = clock_timestamp(), retry_at = NULL, probe_until = NULL,
                    reason = 'a probe was answered', changed_by = :actor
WHERE lane = :lane AND state = 'open' AND probe_until = :permission
RETURNING lane
""")
_PROBE_FAILED = text("""
UPDATE breakers SET retry_at = clock_timestamp() + make_interval(secs => :open), probe_until = NULL,
                    reason = 'a probe failed', changed_by = :actor
WHERE lane = :lane AND state = 'open' AND probe_until = :permission
RETURNING lane
""")
_PROBE_UNUSED = text("""
UPDATE breakers SET probe_until = NULL WHERE lane = :lane AND state = 'open' AND probe_until = :permission
RETURNING lane
""")

_SET = text(f"""
WITH audited AS ({AUDIT_SQL})
INSERT INTO breakers AS b (lane, forced, away_until, reason, changed_by)
VALUES (:lane, CAST(:forced AS text), clock_timestamp() + make_interval(secs => :away), :reason, :actor)
ON CONFLICT (lane) DO UPDATE
SET forced = CASE WHEN :sets_forced THEN excluded.forced ELSE b.forced END,
    away_until = CASE WHEN :sets_away THEN excluded.away_until ELSE b.away_until END,
    since = CASE WHEN :sets_forced AND b.forced IS DISTINCT FROM excluded.forced
                 THEN clock_timestamp() ELSE b.since END,
    reason = excluded.reason, changed_by = excluded.changed_by
RETURNING lane
""")  # noqa: S608  (AUDIT_SQL is a constant)

ProbeOutcome = Literal["answered", "failed", "unused"]

_REPORTS: Final[Mapping[ProbeOutcome, TextClause]] = {
    "answered": _PROBE_ANSWERED,
    "failed": _PROBE_FAILED,
    "unused": _PROBE_UNUSED,
}


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of one lane. Times that a worker acts on are seconds from now: clocks of machines differ."""

    lane: Lane
    state: Measured
    since: datetime
    retry_at: datetime | None
    forced: Measured | None
    """Set by hand; wins over the state."""
    away_until: datetime | None
    """Set while a drill keeps the primary away."""
    reason: str | None
    changed_by: str
    retry_in: float | None
    probe_in: float | None
    """How long the probe under way may still take."""
    away_in: float | None


class BreakerTable:
    """Reads and changes what all workers share."""

    def __init__(self, engine: AsyncEngine, *, policy: BreakerPolicy, actor: str) -> None:
        self._engine = engine
        self._policy = policy
        self._actor = actor

    async def read(self) -> list[Breaker]:
        """Return every lane that was ever in doubt.

        Raises:
            LedgerUnavailable: go on with what was known.
        """
        return await read_breakers(self._engine)

    async def open(self, lane: Lane, reason: str) -> bool:
        """Open a lane for the policy's time; False when it is open already, or set by hand."""
        return await self._changed(_OPEN, lane, {"open": self._policy.open, "reason": reason, "actor": self._actor})

    async def probe(self, lane: Lane) -> datetime | None:
        """Take the permission to probe; None when it is too soon, or another turn has it."""
        found = await row(self._engine, _PROBE, {"lane": lane.value, "probe": self._policy.probe})
        return found["probe_until"] if found else None

    async def report(self, lane: Lane, permission: datetime, outcome: ProbeOutcome) -> bool:
        """Say how a probe ended; False when its permission had passed to another."""
        values = {"permission": permission, "open": self._policy.open, "actor": self._actor}
        return await self._changed(_REPORTS[outcome], lane, values)

    async def _changed(self, statement: TextClause, lane: Lane, values: Mapping[str, object]) -> bool:
        return await row(self._engine, statement, {"lane": lane.value, **values}) is not None


async def read_breakers(engine: AsyncEngine) -> list[Breaker]:
    """Return every lane that was ever in doubt.

    Raises:
        LedgerUnavailable: nothing is known about them.
    """
    known = {lane.value for lane in Lane}
    return [_breaker(found) for found in await rows(engine, _READ, {}) if found["lane"] in known]


async def set_breaker(
    engine: AsyncEngine,
    lane: Lane,
    *,
    forced: Measured | Literal["auto"] | None,
    away: float | None,
    reason: str,
    tenant: str,
    operator: str,
) -> None:
    """Change by hand what workers notice within about a second, and write down who did it, in one statement.

    Args:
        engine: of the ledger.
        lane: whose primary is meant.
        forced: the state it shall have whatever is measured; `auto` lets it be measured again; None changes nothing.
        away: for how many seconds, from now, calls of the primary shall fail without being made; None changes nothing.
        reason: told to whoever looks.
        tenant: of the key that asks.
        operator: id of that key.

    Raises:
        LedgerUnavailable: ask again.
    """
    detail = {"forced": forced, "away_seconds": away, "reason": reason}
    await rows(
        engine,
        _SET,
        {
            "lane": lane.value,
            "forced": None if forced == "auto" else forced,
            "sets_forced": forced is not None,
            "away": away or 0.0,
            "sets_away": away is not None,
            "reason": reason or None,
            "actor": f"operator {operator}",
            **audit_values(
                tenant=tenant,
                operator=operator,
                verb="breaker.force" if forced is not None else "breaker.away",
                subject=lane.value,
                detail={name: value for name, value in detail.items() if value is not None},
            ),
        },
    )


def _breaker(found: RowMapping) -> Breaker:
    facts = dict(found)
    return Breaker(lane=Lane(facts.pop("lane")), **facts)
