"""What a burst of rescues may cost: a token bucket in the ledger, one token a turn, shared by every upkeep.

Plain overload sends turns past their queue deadline, and each rescue is a call to the frontier: without a budget a lane
that is merely slow becomes its bill. What the budget does not allow stays where it is and may be asked for again.
"""

from typing import Final

from schemas.policy import RescueBudget

ALLOWED_SQL: Final = """
wanted AS (
    SELECT count(*)::int AS n FROM due
), bucket AS (
    INSERT INTO rescue_budget AS b (one, tokens, taken, refilled_at)
    SELECT true, CAST(:rescue_burst AS float) - least(n, floor(CAST(:rescue_burst AS float))),
           least(n, floor(CAST(:rescue_burst AS float))), statement_timestamp()
    FROM wanted WHERE n > 0
    ON CONFLICT (one) DO UPDATE SET (tokens, taken, refilled_at) = (
        -- Another upkeep may have filled it while this statement waited for it, with a later clock than ours.
        SELECT filled - least(n, floor(filled)), least(n, floor(filled)), greatest(b.refilled_at, statement_timestamp())
        FROM wanted, least(
            CAST(:rescue_burst AS float),
            b.tokens + CAST(:rescue_rate AS float)
                       * greatest(0, extract(epoch FROM statement_timestamp() - b.refilled_at)::float)
        ) AS filled
    )
    RETURNING taken
), allowed AS (
    SELECT d.turn_id FROM due d JOIN turns t ON t.turn_id = d.turn_id
    ORDER BY coalesce(t.head_at, t.created_at), d.turn_id LIMIT (SELECT coalesce(max(taken), 0) FROM bucket)
)"""
"""CTEs to stand after one named `due` (with a `turn_id`); `allowed` (with a `turn_id`) are those a token was taken for.

Oldest first, never more than there are whole tokens. With nothing due nothing is written. Right also for two upkeeps at
once: they wait for each other at the bucket's only row, which is made when it is missing. Parameters: `budget_values`.
"""


def budget_values(budget: RescueBudget) -> dict[str, object]:
    """Return the parameters of `ALLOWED_SQL`: tokens a second, and the most there can be."""
    return {"rescue_rate": budget.per_minute / 60, "rescue_burst": float(budget.burst)}
