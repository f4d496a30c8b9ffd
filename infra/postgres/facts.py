"""What is known of a buyer: read with the turn that is prepared, written with the statement that queues it."""

import json
from collections.abc import Iterable
from typing import Final, cast

from schemas.briefs import Fact

FACTS_SQL: Final = """
    (SELECT coalesce(json_agg(json_build_array(f.dimension, f.value, f.seq, f.confidence, f.extracted_by)
                              ORDER BY f.seq, f.dimension), '[]')
     FROM facts f WHERE f.tenant_id = t.tenant_id AND f.conversation_id = t.conversation_id)
"""
"""The latest fact of each dimension known in the conversation of turn `t`, oldest first: see `facts_read`."""

LEARNT_CTE: Final = """
learnt AS (
    INSERT INTO facts AS f (tenant_id, conversation_id, dimension, value, seq, confidence, extracted_by)
    SELECT q.tenant_id, q.conversation_id, n.dimension, n.value, n.seq, n.confidence, n."by"
    FROM queued q, jsonb_to_recordset(CAST(:learnt AS jsonb))
                   AS n(dimension text, value text, seq int, confidence real, "by" text)
    ON CONFLICT (tenant_id, conversation_id, dimension) DO UPDATE
    SET value = excluded.value, seq = excluded.seq, confidence = excluded.confidence,
        extracted_by = excluded.extracted_by, written_at = clock_timestamp()
    WHERE f.seq <= excluded.seq
)
"""
"""Writes what `learnt_in` returns, if and only if `queued` took the turn."""


def learnt_in(seq: int, facts: Iterable[Fact]) -> str:
    """Return, as the statement takes them, those of `facts` that turn `seq` of the conversation told."""
    return json.dumps([fact.model_dump(mode="json") for fact in facts if fact.seq == seq])


def facts_read(decoded: object) -> tuple[Fact, ...]:
    """Read what `FACTS_SQL` returned."""
    items = cast("list[tuple[str, str, int, float, str]]", decoded)
    return tuple(
        Fact(dimension=dimension, value=value, seq=seq, confidence=round(confidence, 4), by=by)
        for dimension, value, seq, confidence, by in items
    )
