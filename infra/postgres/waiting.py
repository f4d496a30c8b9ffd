"""Turns that wait in a lane and that no hint has brought to a worker."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import rows
from schemas.agents import ANSWERING, Agent, Lane, lane_of
from schemas.ids import TurnId
from schemas.turns import TurnState

# Taking a turn here is a hint to oneself, and noted as one: workers that look at the same time share what they find.
# Times are the statement's, which an index can be searched by.
_TAKE_OVERDUE = text("""
WITH due AS (
    SELECT turn_id FROM turns
    WHERE done_at IS NULL AND state IN ('queued', 'rescue') AND lease_until IS NULL
      AND hinted_at < statement_timestamp() - make_interval(secs => :late_again)
      AND (hints > 1 OR hinted_at < statement_timestamp() - make_interval(secs => :late))
      AND deadline_at > statement_timestamp()
      AND CASE WHEN state = 'rescue' THEN :rescues ELSE agent = ANY(CAST(:agents AS text[])) END
    ORDER BY hinted_at LIMIT :batch FOR UPDATE SKIP LOCKED
)
UPDATE turns t SET hinted_at = clock_timestamp(), hints = t.hints + 1 FROM due d WHERE t.turn_id = d.turn_id
RETURNING t.turn_id::text, t.agent, t.state
""")


@dataclass(frozen=True, slots=True)
class Overdue:
    """How long after its hint a turn counts as not brought. Seconds."""

    late: float
    """After the first hint."""
    late_again: float
    """After a further one, at most `late`: that the first did not arrive says enough."""


class Waiting:
    """A worker's own look at what waits in its lanes."""

    def __init__(self, engine: AsyncEngine, *, lanes: Collection[Lane]) -> None:
        self._engine = engine
        self._agents = [agent.value for agent in ANSWERING if lane_of(agent) in lanes]
        self._rescues = Lane.FRONTIER_FALLBACK in lanes

    async def take_overdue(self, overdue: Overdue, *, limit: int) -> list[tuple[TurnId, Lane]]:
        """Return the turns that have waited longest, at most `limit`; nobody else is given them for a while.

        Raises:
            LedgerUnavailable: nothing is known; look again later.
        """
        found = await rows(
            self._engine,
            _TAKE_OVERDUE,
            {
                "late": overdue.late,
                "late_again": overdue.late_again,
                "agents": self._agents,
                "rescues": self._rescues,
                "batch": limit,
            },
        )
        return [
            (
                TurnId(r["turn_id"]),
                Lane.FRONTIER_FALLBACK if r["state"] == TurnState.RESCUE else lane_of(Agent(r["agent"])),
            )
            for r in found
        ]
