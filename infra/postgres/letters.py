"""The dead letter of a turn, written by the statement that takes the turn out of its lane.

A turn has one dead letter, however often it left a lane: the row tells the last time, `times` how often, and every
time the whole record goes to Kafka through the outbox.
"""

from typing import Final

from schemas.dead_letters import (
    H_ATTEMPTS,
    H_CONSUMER_GROUP,
    H_ERROR_MESSAGE,
    H_ERROR_TYPE,
    H_FAILED_AT,
    H_FIRST_FAILED_AT,
    H_ID,
    H_ORIGINAL_OFFSET,
    H_ORIGINAL_PARTITION,
    H_ORIGINAL_TIMESTAMP,
    H_ORIGINAL_TOPIC,
    H_REPLAY_COUNT,
    H_SERVICE,
    H_STAGE,
    H_TURN,
    H_VERSIONS,
)
from schemas.names import GROUP_ORCHESTRATOR, TOPIC_DEAD_LETTERS

_RFC3339: Final = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""

_HEADERS: Final = {
    H_ID: "l.dead_letter_id::text",
    H_TURN: "l.turn_id::text",
    H_ORIGINAL_TOPIC: "l.kafka_topic",
    H_ORIGINAL_PARTITION: "l.kafka_partition::text",
    H_ORIGINAL_OFFSET: "l.kafka_offset::text",
    H_ORIGINAL_TIMESTAMP: "r.produced_ms::text",
    H_CONSUMER_GROUP: f"'{GROUP_ORCHESTRATOR}'",
    H_SERVICE: "CAST(:actor AS text)",
    H_STAGE: "l.stage",
    H_ERROR_TYPE: "l.reason",
    H_ERROR_MESSAGE: "coalesce(l.error, l.reason)",
    H_ATTEMPTS: "(SELECT count(*)::text FROM attempts a WHERE a.turn_id = l.turn_id)",
    H_FIRST_FAILED_AT: _RFC3339.format("l.created_at"),
    H_FAILED_AT: _RFC3339.format("l.updated_at"),
    H_REPLAY_COUNT: "l.replays::text",
    H_VERSIONS: "l.versions::text",
}
_PAIRS: Final = ", ".join(f"jsonb_build_array('{name}', {value})" for name, value in _HEADERS.items())

LETTER_COLUMNS: Final = """t.turn_id, t.tenant_id, t.conversation_id, t.agent, t.epoch, t.plan, t.replay_of,
              t.kafka_topic, t.kafka_partition, t.kafka_offset"""
"""What the source of `letter_ctes` must return of a turn `t`, beside `from_state`."""


def letter_ctes(source: str, *, reason: str, error: str = "CAST(NULL AS text)") -> str:
    """Return the CTEs `letter` and `letter_copy`: a dead letter for each row of `source`, and its copy for Kafka.

    Args:
        source: name of a CTE that returns `LETTER_COLUMNS` and `from_state`.
        reason: SQL of the reason, over `s`; no dead letter where it is NULL.
        error: SQL of what went wrong, over `s`, without any text of visitors or models.

    The statement binds `:actor`. A replay's own dead letter is evidence only: the one it replays stays open.
    """
    return f"""letter AS (
    INSERT INTO dead_letters AS l (turn_id, tenant_id, conversation_id, agent, reason, stage, state, error, epoch,
                                   versions, kafka_topic, kafka_partition, kafka_offset)
    SELECT s.turn_id, s.tenant_id, s.conversation_id, s.agent, {reason}, s.from_state,
           CASE WHEN s.replay_of IS NULL THEN 'unanswered' ELSE 'obsolete' END, {error}, s.epoch,
           coalesce((SELECT jsonb_build_object('policy', a.policy, 'prompt', a.prompt, 'model', a.model)
                     FROM attempts a WHERE a.turn_id = s.turn_id ORDER BY a.ordinal DESC LIMIT 1),
                    jsonb_build_object('policy', s.plan -> 'policy', 'prompt', NULL, 'model', NULL)),
           s.kafka_topic, s.kafka_partition, s.kafka_offset
    FROM {source} s WHERE {reason} IS NOT NULL
    ON CONFLICT (turn_id) WHERE turn_id IS NOT NULL DO UPDATE
    SET reason = excluded.reason, stage = excluded.stage, error = excluded.error, epoch = excluded.epoch,
        versions = excluded.versions, times = l.times + 1, updated_at = clock_timestamp()
    RETURNING l.*
), letter_copy AS (
    INSERT INTO outbox (topic, key, original_headers, headers, value, turn_id)
    SELECT '{TOPIC_DEAD_LETTERS}', convert_to(l.tenant_id || ':' || l.conversation_id, 'UTF8'), r.headers,
           jsonb_build_array({_PAIRS}), r.value, l.turn_id
    FROM letter l JOIN turn_records r USING (turn_id)
)"""  # noqa: S608  (every part is a constant of the product)
