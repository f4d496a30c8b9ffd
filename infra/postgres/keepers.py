"""People who take conversations over, speak in them and give them back.

Taking over changes one row, that of the conversation. Whatever could show an agent's text for the first time locks that
row and looks at it in its own statement: the claim, the commit point, the end of a silent turn. So whichever comes
first, once a takeover has returned nothing of an agent becomes visible in a turn of which nothing was visible before.
Locks are taken in one order: a turn's row, then its conversation's.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, cast

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.audit import AUDITED
from infra.postgres.statements import row, rows
from schemas.ids import TurnId
from schemas.keepers import Keeper

SAID_WAITS: Final = 600.0
"""Seconds after which upkeep shows what a person wrote, should no orchestrator have done so."""


def keeper_of(turn: str) -> str:
    """Return SQL for who keeps the conversation of the turn of this alias, as the statement's snapshot has it."""
    return f"""(SELECT k.keeper FROM conversations k
          WHERE k.tenant_id = {turn}.tenant_id AND k.conversation_id = {turn}.conversation_id)"""  # noqa: S608


def told_of_person(turn: str) -> str:
    """Return SQL for whether a person keeps the turn's conversation and the visitor has heard of them."""
    return f"""(SELECT k.keeper = 'human' AND EXISTS (
              SELECT 1 FROM turns h WHERE h.tenant_id = k.tenant_id AND h.conversation_id = k.conversation_id
                AND h.done_at >= k.keeper_since
                AND (h.said_by IS NOT NULL OR (h.state = 'handed_off' AND h.closing IS NOT NULL)))
          FROM conversations k
          WHERE k.tenant_id = {turn}.tenant_id AND k.conversation_id = {turn}.conversation_id)"""  # noqa: S608


_CONVERSATION: Final = "c.tenant_id = CAST(:tenant AS text) AND c.conversation_id = CAST(:conversation AS text)"

# Locked first: the clock is read once whatever had the row before has let it go.
_TAKE = text(f"""
WITH held AS (
    SELECT c.tenant_id, c.conversation_id FROM conversations c WHERE {_CONVERSATION} FOR NO KEY UPDATE
), changed AS (
    UPDATE conversations c
    SET keeper = 'human', keeper_name = CAST(:name AS text), keeper_reason = CAST(:reason AS text),
        keeper_since = CASE WHEN c.keeper = 'human' THEN c.keeper_since ELSE clock_timestamp() END
    FROM held h
    WHERE c.tenant_id = h.tenant_id AND c.conversation_id = h.conversation_id AND (
        c.keeper = 'agent' OR c.keeper_name IS DISTINCT FROM CAST(:name AS text))
    RETURNING c.conversation_id
), {
    AUDITED.format(
        subject="conversation_id",
        detail="jsonb_build_object('name', CAST(:name AS text), 'reason', CAST(:reason AS text))",
        what="changed",
    )
}
SELECT conversation_id FROM changed
""")  # noqa: S608  (constants only)

_GIVE_BACK = text(f"""
WITH changed AS (
    UPDATE conversations c
    SET keeper = 'agent', keeper_name = NULL, keeper_reason = NULL, keeper_since = clock_timestamp()
    WHERE {_CONVERSATION} AND c.keeper = 'human'
    RETURNING c.conversation_id
), {AUDITED.format(subject="conversation_id", detail="CAST('{}' AS jsonb)", what="changed")}
SELECT conversation_id FROM changed
""")  # noqa: S608

_LOAD = text(f"""
SELECT c.keeper, c.keeper_name AS name, c.keeper_reason AS reason, c.keeper_since AS since,
       (SELECT t.turn_id::text FROM turns t WHERE t.tenant_id = c.tenant_id AND t.conversation_id = c.conversation_id
          AND t.done_at IS NULL ORDER BY t.seq LIMIT 1) AS head
FROM conversations c WHERE {_CONVERSATION}
""")  # noqa: S608

_LIST = text("""
SELECT c.conversation_id, c.keeper_name AS name, c.keeper_reason AS reason, c.keeper_since AS since,
       (SELECT count(*) FROM turns t
        WHERE t.tenant_id = c.tenant_id AND t.conversation_id = c.conversation_id AND t.said_by IS NULL
          AND t.coalesced_into IS NULL AND (t.done_at IS NULL OR t.done_at >= c.keeper_since)
          AND t.seq > (SELECT coalesce(max(s.seq), 0) FROM turns s WHERE s.tenant_id = c.tenant_id
                         AND s.conversation_id = c.conversation_id AND s.said_by IS NOT NULL)) AS unanswered
FROM conversations c
WHERE c.tenant_id = CAST(:tenant AS text) AND c.keeper = 'human' AND c.conversation_id > CAST(:after AS text)
ORDER BY c.conversation_id LIMIT CAST(:limit AS int)
""")

# Its channel is that of the conversation's latest turn: what delivers answers there delivers this one.
_SAY = text(f"""
WITH placed AS (
    UPDATE conversations c SET last_seq = c.last_seq + 1
    WHERE {_CONVERSATION} AND c.keeper = 'human'
      AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.turn_id = CAST(:turn_id AS uuid))
    RETURNING c.tenant_id, c.conversation_id, c.last_seq, c.keeper_name
), inserted AS (
    INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, body_sha256, kafka_topic,
                       kafka_partition, kafka_offset, state, deadline_at, content, cuts, source, said_by, traceparent)
    SELECT CAST(:turn_id AS uuid), p.tenant_id, p.conversation_id, p.last_seq,
           coalesce((SELECT t.channel FROM turns t WHERE t.tenant_id = p.tenant_id
                       AND t.conversation_id = p.conversation_id ORDER BY t.seq DESC LIMIT 1), 'api'),
           '', :digest, '', 0, 0, 'received', clock_timestamp() + make_interval(secs => {SAID_WAITS}),
           CAST(:html AS text), ARRAY[length(CAST(:html AS text))], 'human',
           coalesce(CAST(:name AS text), p.keeper_name, CAST(:operator AS text)), CAST(:traceparent AS text)
    FROM placed p
    RETURNING turn_id, conversation_id
), event AS (
    INSERT INTO turn_events (turn_id, to_state, epoch, actor, note)
    SELECT turn_id, 'received', 0, :operator, 'said' FROM inserted
), {
    AUDITED.format(
        subject="conversation_id",
        detail="jsonb_build_object('turn_id', turn_id, 'name', CAST(:name AS text))",
        what="inserted",
    )
}
SELECT c.keeper, (SELECT t.body_sha256 FROM turns t WHERE t.turn_id = CAST(:turn_id AS uuid)) AS known,
       EXISTS (SELECT 1 FROM inserted) AS inserted
FROM conversations c WHERE {_CONVERSATION}
""")  # noqa: S608


@dataclass(frozen=True, slots=True)
class Kept:
    """Who keeps a conversation, and its first open turn."""

    keeper: Keeper
    name: str | None
    """The person; None while agents answer."""
    reason: str | None
    since: datetime | None
    """None where it always were agents."""
    head: TurnId | None


@dataclass(frozen=True, slots=True)
class Taken:
    """A conversation that a person has."""

    conversation_id: str
    name: str
    reason: str | None
    since: datetime
    unanswered: int
    """Messages of the visitor that came to this person and after which no person wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a person writes to a visitor."""

    turn_id: TurnId
    html: str = field(repr=False)
    digest: str
    name: str | None
    """Who writes; None: whoever took over."""
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Said:
    """The message is a turn of its conversation now, or was one already."""


@dataclass(frozen=True, slots=True)
class OtherWords:
    """Its key stands for another message."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Agents keep the conversation: whoever speaks takes it over first."""


class Keepers:
    """What an operator does with one tenant's conversations. `operator` is the id of the key, for the audit."""

    def __init__(self, engine: AsyncEngine, *, tenant: str, operator: str) -> None:
        self._engine = engine
        self._values: dict[str, object] = {"tenant": tenant, "operator": operator}

    async def load(self, conversation: str) -> Kept | None:
        """Return who keeps a conversation; None if there is none.

        Raises:
            LedgerUnavailable: nothing is known about it.
        """
        found = await row(self._engine, _LOAD, self._values | {"conversation": conversation})
        if found is None:
            return None
        head = TurnId(found["head"]) if found["head"] else None
        return Kept(cast("Keeper", found["keeper"]), found["name"], found["reason"], found["since"], head)

    async def taken(self, *, after: str, limit: int) -> list[Taken]:
        """Return conversations that people have, by id, those behind `after`.

        Raises:
            LedgerUnavailable: nothing is known about them.
        """
        found = await rows(self._engine, _LIST, self._values | {"after": after, "limit": limit})
        return [Taken(**one) for one in found]

    async def take(self, conversation: str, *, name: str, reason: str) -> None:
        """Make a person the keeper; when this returns no agent can begin to be seen. Repeating it changes nothing.

        Raises:
            LedgerUnavailable: it may or may not have happened; ask again.
        """
        more: dict[str, object] = {"verb": "conversation_taken", "name": name, "reason": reason}
        await row(self._engine, _TAKE, self._values | {"conversation": conversation} | more)

    async def give_back(self, conversation: str) -> None:
        """Make agents the keeper again, from the next turn on. Repeating it changes nothing.

        Raises:
            LedgerUnavailable: it may or may not have happened; ask again.
        """
        more: dict[str, object] = {"verb": "conversation_given_back"}
        await row(self._engine, _GIVE_BACK, self._values | {"conversation": conversation} | more)

    async def say(self, conversation: str, message: Message) -> Said | OtherWords | NotTaken | None:
        """Make what a person wrote the next turn of a conversation that is theirs; None if there is no such one.

        Raises:
            LedgerUnavailable: it may or may not have happened; ask again under the same id.
        """
        values = self._values | {
            "conversation": conversation,
            "verb": "conversation_said",
            "turn_id": message.turn_id,
            "html": message.html,
            "digest": message.digest,
            "name": message.name,
            "traceparent": message.traceparent,
        }
        try:
            found = await row(self._engine, _SAY, values)
        except IntegrityError:
            # The same message, sent twice at once: the other one has been written.
            found = await row(self._engine, _SAY, values)
        if found is None:
            return None
        if found["inserted"] or found["known"] == message.digest:
            return Said()
        return OtherWords() if found["known"] else NotTaken()
