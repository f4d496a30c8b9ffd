"""Waiting messages taken together: the first of them is answered for all, the others end with it.

A group is made by the statement that prepares its head, and never changed after that turn is queued. Its other turns
stay `received` behind their head, until the statement that ends the head ends them too.
"""

from dataclasses import dataclass
from typing import Final, cast

from schemas.ids import TurnId
from schemas.turns import CHANNEL_OPENAI

MOST_ABSORBED: Final = 20
"""Turns of a group beside its head."""

MOST_CHARACTERS: Final = 16_000
"""Of a group's messages together: as many as one message may have."""

_EMPTY_LINE: Final = "chr(10) || chr(10)"

# One whose deadline has passed may be fenced by a sweep already: it ends by itself.
ABSORBED_CTES: Final = f"""behind AS (
    SELECT n.turn_id, c.turn_id AS head,
           bool_and(n.state = 'received' AND n.channel = c.channel AND n.replay_of IS NULL AND n.history = '[]'
                    AND n.said_by IS NULL AND n.deadline_at > clock_timestamp()) OVER so_far AS fit,
           length(c.input_text) + sum(length(n.input_text) + 2) OVER so_far AS characters
    FROM claimed c CROSS JOIN LATERAL (
        SELECT * FROM turns o WHERE o.tenant_id = c.tenant_id AND o.conversation_id = c.conversation_id
          AND o.seq > c.seq AND o.done_at IS NULL ORDER BY o.seq LIMIT {MOST_ABSORBED}
    ) n
    WHERE c.channel <> '{CHANNEL_OPENAI}' AND c.replay_of IS NULL AND c.said_by IS NULL
    WINDOW so_far AS (ORDER BY n.seq)
), absorbed AS (
    UPDATE turns t SET coalesced_into = b.head FROM behind b
    WHERE t.turn_id = b.turn_id AND b.fit AND b.characters <= {MOST_CHARACTERS} AND t.state = 'received'
    RETURNING t.seq, t.input_text
)"""  # noqa: S608  (constants only)
"""The CTE `absorbed`: what waits right behind the turn in the CTE `claimed`, from now on its group."""

ABSORBED_TEXT: Final = f"""
    || coalesce((SELECT string_agg({_EMPTY_LINE} || a.input_text, '' ORDER BY a.seq) FROM absorbed a), '')
"""  # noqa: S608

COALESCED: Final = "coalesced"
"""Reason of a turn that ended with the head of its group."""

GROUP_ENDED_CTE: Final = f"""
ended_with AS (
    UPDATE turns g SET state = d.state, reason = '{COALESCED}', done_at = clock_timestamp()
    FROM done d WHERE g.coalesced_into = d.turn_id AND g.done_at IS NULL
    RETURNING g.turn_id, g.seq, g.state, g.epoch, g.created_at, gen_random_uuid() AS event_id
), group_record_let_go AS (
    DELETE FROM turn_records r USING ended_with g WHERE r.turn_id = g.turn_id
), group_event AS (
    INSERT INTO turn_events (turn_id, from_state, to_state, epoch, actor, note)
    SELECT turn_id, 'received', state, epoch, :actor, '{COALESCED}' FROM ended_with ORDER BY seq
)"""  # noqa: S608
"""The CTE `ended_with`: the group of the turn in the CTE `done`, ended as it ended. Binds `:actor`."""

GROUP_RESULTS: Final = """
SELECT g.seq, (SELECT jsonb_agg(CASE e.header ->> 0 WHEN 'ce_id' THEN jsonb_build_array('ce_id', g.event_id)
                                ELSE e.header END ORDER BY e.place)
               FROM jsonb_array_elements(CAST(:headers AS jsonb)) WITH ORDINALITY AS e(header, place)) AS headers,
       convert_to((CAST(:group_value AS jsonb)
                   || jsonb_build_object('turn_id', g.turn_id, 'seq', g.seq))::text, 'UTF8') AS value, g.turn_id
FROM ended_with g
"""
"""A result for each turn of `ended_with`: the head's headers under an id of its own, and `:group_value` as its own."""

GROUP_SQL: Final = """
(SELECT json_agg(json_build_array(g.turn_id, g.epoch, extract(epoch FROM g.created_at)::bigint,
                                  extract(epoch FROM clock_timestamp() - g.created_at)::float) ORDER BY g.seq)
 FROM ended_with g)
"""
"""What `group_of` reads."""


def asked(turn: str) -> str:
    """Return SQL for what the turn of this alias and its group ask."""
    return f"""{turn}.input_text || coalesce((
    SELECT string_agg({_EMPTY_LINE} || g.input_text, '' ORDER BY g.seq) FROM turns g
    WHERE g.coalesced_into = {turn}.turn_id), '')"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Absorbed:
    """A turn that ended with the head of its group."""

    turn_id: TurnId
    epoch: int
    created: int
    """Unix seconds at which it was recorded."""
    took: float
    """Seconds from its recording to its end."""


def group_of(decoded: object) -> tuple[Absorbed, ...]:
    """Read what `GROUP_SQL` returned."""
    items = cast("list[tuple[str, int, int, float]] | None", decoded) or []
    return tuple(Absorbed(TurnId(turn_id), epoch, created, took) for turn_id, epoch, created, took in items)
