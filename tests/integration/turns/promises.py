"""What must hold after every step of every life, read from ledger, log and watchers.

I1 to I12 are the promises of `docs/delivery.md`, numbered here so that a failure names one:

- I1: all content ever shown of a turn is one attempt's
- I2: an ended turn never changes, and the terminal frame says what the ledger says
- I3: one request an ordinal, two ordinals a turn, a second one only while nothing is visible
- I4: frames are numbered without hole or repetition, and a number is the same frame for everybody
- I5: what is shown is a beginning of the answer; a turn that ends without one has shown nothing
- I6: the turn after a truncated one skips the primary, once
- I7: every turn ends once all clocks have run out
- I8: a turn starts after the earlier ones of its conversation have ended
- I9: one key, one turn; another message under it is refused
- I10: what is committed to Kafka is in the ledger
- I11: an ended turn has exactly one result, an open one none
- I12: epochs only grow, the log's never ahead of the ledger's; an old epoch changes nothing
- I13: while a person has a conversation no agent's text begins to be visible in it, and no fallback is asked
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
from redis.asyncio import Redis

from infra.postgres.views import TurnView, frames_of_view, load_turn
from infra.redis.frame_log import content_of
from producers.gateway.watch import FROM_THE_START, Located, Telling, Watcher
from schemas.frames import Phase, WireFrame
from schemas.ids import TurnId
from schemas.names import TOPIC_RESULTS, fence_key, log_key
from schemas.turns import OPEN, TERMINAL, TRANSITIONS, TurnState
from tests.support.pipeline import TENANT, Pipeline

Row = dict[str, Any]


class Ledger:
    """A connection of the test's own: half a millisecond a question."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, address: str) -> "Ledger":
        """Return one to the database at this address."""
        return cls(await asyncpg.connect(address))  # pyright: ignore[reportUnknownMemberType] - the driver has no types

    async def fetch(self, statement: str, *values: object) -> list[Row]:
        """Return what a query finds."""
        return [dict(found) for found in await self._connection.fetch(statement, *values)]

    async def execute(self, statement: str, *values: object) -> str:
        """Run a statement; returns what it did, as `UPDATE 3`."""
        return str(await self._connection.execute(statement, *values))

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


UNSEEN: Final = (TurnState.QUEUED, TurnState.RUNNING, TurnState.FALLBACK, TurnState.RESCUE)
STARTED: Final = frozenset(TurnState) - TERMINAL - {TurnState.RECEIVED}


@dataclass
class Visitor:
    """One watcher and every frame that was told to it, from the first."""

    turn: TurnId
    telling: Telling = field(default_factory=lambda: Telling(FROM_THE_START))
    told: list[WireFrame] = field(default_factory=list[WireFrame])
    eager: bool = False
    """Whether it looks after each step; others look when they come back."""
    judged: bool = False
    """Whether it has seen the end, and that was found right: nothing changes any more."""


class Promises:
    """Everything seen so far of one life, and whether it may be."""

    def __init__(self, p: Pipeline, ledger: Ledger, watcher: Watcher) -> None:
        self.p = p
        self.ledger = ledger
        self.watcher = watcher
        self.recorded: dict[TurnId, str] = {}
        """Turns that the ledger was given, and their conversations, in the order in which Kafka has them."""
        self.rows: dict[TurnId, Row] = {}
        self.states: dict[TurnId, TurnState] = {}
        self.forced: dict[str, bool] = {}
        self.skipped: set[TurnId] = set()
        """Turns that a worker took with the primary skipped."""
        self.asked: Counter[tuple[TurnId, int]] = Counter()
        self.silenced: set[str] = set()
        """Conversations that a person has."""
        self.visitors: list[Visitor] = []
        self.forgotten: set[TurnId] = set()
        """Turns that were open when Redis lost everything: their answer may be shorter than what was shown."""
        self.steps: set[tuple[TurnState | None, TurnState]] = set()
        """Every transition seen."""
        self._shown: dict[TurnId, list[WireFrame]] = {}
        self._logs: dict[TurnId, list[WireFrame]] = {}
        self._seen_from: dict[int, object] = {}
        self._views: dict[TurnId, TurnView] = {}
        self._attempts: dict[tuple[TurnId, int], Row] = {}
        self._results: dict[TurnId, Row] = {}
        self._last_event = 0

    def visit(self, visitor: Visitor) -> Visitor:
        """Add a watcher."""
        self.visitors.append(visitor)
        return visitor

    def waiting(self, *states: TurnState) -> list[TurnId]:
        """Return the turns in one of these states."""
        return [turn for turn, state in self.states.items() if state in states]

    def ask(self, turn: TurnId, ordinal: int) -> None:
        """Note that a request leaves for a model (I3)."""
        self.asked[turn, ordinal] += 1
        assert self.asked[turn, ordinal] == 1, "I3: a model was asked twice for one ordinal"
        if ordinal == 2:
            assert not _content(self._shown.get(turn, [])), "I3: a second model was asked after text was visible"

    async def check(self) -> None:
        """Compare everything with what was promised."""
        found = await self.ledger.fetch("SELECT * FROM turns ORDER BY conversation_id, seq")
        rows = {TurnId(str(row["turn_id"])): row for row in found}
        self._note_replays(rows)
        self._check_record(rows)
        self._check_rows(rows)
        self._check_rescues(rows)
        await self._check_events(rows)
        self.rows = rows
        await self._check_attempts()
        await self._check_results()
        await self._check_logs(self.p.redis)
        for visitor in self.visitors:
            if visitor.eager and not visitor.judged:
                await self.look(visitor)
        for visitor in self.visitors:
            if not visitor.judged:
                await self._check_told(visitor)

    def check_untouched(self, turn: TurnId, epoch: int, before: Row) -> None:
        """Whoever has another epoch than the turn has changed nothing (I12)."""
        if before["epoch"] != epoch:
            assert self.rows[turn] == before, "I12: an old epoch changed the ledger"

    def _note_replays(self, rows: dict[TurnId, Row]) -> None:
        """What a person wrote and a replay are turns of their own; a letter has one replay at a time, and none once one
        of them answered it (I1, I9).
        """
        replays = {turn: row for turn, row in rows.items() if row["replay_of"] is not None}
        for turn, row in rows.items():
            if turn not in self.recorded and (turn in replays or row["said_by"] is not None):
                self.recorded[turn] = row["conversation_id"]
                self.visit(Visitor(turn, eager=True))
        enough = (*OPEN, TurnState.ANSWERED, TurnState.TRUNCATED)
        most = Counter(row["replay_of"] for row in replays.values() if row["state"] in enough)
        assert all(n == 1 for n in most.values()), "I1, I9: a dead letter is answered twice"

    def _check_record(self, rows: dict[TurnId, Row]) -> None:
        assert rows.keys() == self.recorded.keys(), "I9, I10: a turn is lost, or a repeated message became one"
        numbers: Counter[str] = Counter()
        for turn, conversation in self.recorded.items():
            numbers[conversation] += 1
            place = (rows[turn]["conversation_id"], rows[turn]["seq"])
            assert place == (conversation, numbers[conversation]), "I8: turns are not numbered as they came"

    def _check_rows(self, rows: dict[TurnId, Row]) -> None:
        for turn, before in self.rows.items():
            assert rows[turn]["epoch"] >= before["epoch"], "I12: an epoch fell"
            if self.states[turn] in TERMINAL:
                assert rows[turn] == before, "I2: a turn that had ended has changed"

    def _check_rescues(self, rows: dict[TurnId, Row]) -> None:
        for turn, row in rows.items():
            if row["state"] == TurnState.RESCUE and self.states.get(turn) is not TurnState.RESCUE:
                assert row["epoch"] > self.rows[turn]["epoch"], "I3: a turn is open to a rescue before it is fenced"
            if row["state"] in UNSEEN:
                assert not row["content"], "I5: a turn of which nothing was shown keeps a checkpoint"

    async def _check_events(self, rows: dict[TurnId, Row]) -> None:
        """Follow the history since the last step: transitions, order (I8) and the flag for the next turn (I6)."""
        events = await self.ledger.fetch(
            "SELECT event_id, turn_id, from_state, to_state FROM turn_events WHERE event_id > $1 ORDER BY event_id",
            self._last_event,
        )
        for event in events:
            turn, after = TurnId(str(event["turn_id"])), TurnState(event["to_state"])
            before = self.states.get(turn)
            assert event["from_state"] == before, "a transition left another state than the turn was in"
            assert before is None or after in TRANSITIONS[before], f"{before} to {after} is no transition"
            self.states[turn] = after
            self.steps.add((before, after))
            self._check_order(rows, turn, after)
            self._check_keeper(rows[turn], before, after)
            self._follow_flag(turn, before, after)
            self._last_event = event["event_id"]
        assert {turn: row["state"] for turn, row in rows.items()} == self.states, "a transition has no event"
        flags = await self.ledger.fetch("SELECT conversation_id, force_frontier_next FROM conversations")
        forced = {flag["conversation_id"] for flag in flags if flag["force_frontier_next"]}
        assert forced == {name for name, flag in self.forced.items() if flag}, "I6: the flag is not what it should be"

    def _check_order(self, rows: dict[TurnId, Row], turn: TurnId, after: TurnState) -> None:
        if after not in STARTED:
            return
        mine = rows[turn]
        for other, row in rows.items():
            if row["conversation_id"] == mine["conversation_id"] and row["seq"] < mine["seq"]:
                assert self.states[other] in TERMINAL, "I8: a turn started before its predecessor had ended"

    def _check_keeper(self, row: Row, before: TurnState | None, after: TurnState) -> None:
        if row["conversation_id"] not in self.silenced or row["said_by"] is not None:
            return
        assert after not in (TurnState.RUNNING, TurnState.FALLBACK), "I13: a model is asked in a person's conversation"
        assert after is not TurnState.STREAMING, "I13: an agent begins to be seen in a person's conversation"
        if before not in (TurnState.STREAMING, TurnState.SEALING):
            assert after not in (TurnState.ANSWERED, TurnState.BOUNDED, TurnState.PARKED), (
                "I13: a turn that nothing was seen of ends without the person who has its conversation"
            )

    def _follow_flag(self, turn: TurnId, before: TurnState | None, after: TurnState) -> None:
        conversation = self.recorded[turn]
        if after is TurnState.TRUNCATED:
            self.forced[conversation] = True
        elif (before, after) == (TurnState.QUEUED, TurnState.RUNNING):
            assert not self.forced.get(conversation), "I6: the turn after a truncated one asked the primary"
        elif (before, after) == (TurnState.QUEUED, TurnState.FALLBACK):
            assert self.forced.get(conversation) or turn in self.skipped, "I6: a turn skipped the primary for no reason"
            self.forced[conversation] = False
        elif (before, after) == (TurnState.RESCUE, TurnState.FALLBACK):
            self.forced[conversation] = False

    async def _check_attempts(self) -> None:
        for found in await self.ledger.fetch("SELECT turn_id, ordinal, epoch, model, rescue FROM attempts"):
            key = (TurnId(str(found["turn_id"])), found["ordinal"])
            assert self._attempts.setdefault(key, found) == found, "I3: an attempt was made twice"
        assert self.asked.keys() <= self._attempts.keys(), "I3: a model was asked before the ledger knew of it"

    async def _check_results(self) -> None:
        found = await self.ledger.fetch("SELECT * FROM outbox WHERE topic = $1", TOPIC_RESULTS)
        results = {TurnId(str(row["turn_id"])): row for row in found}
        assert len(found) == len(results), "I11: a turn has two results"
        ended = {turn for turn, state in self.states.items() if state in TERMINAL}
        assert results.keys() == ended, "I11: an ended turn has no result, or an open one has"
        assert self._results.items() <= results.items(), "I11: a result has changed"
        self._results = results

    async def _check_logs(self, redis: Redis) -> None:
        turns = list(self.recorded)
        async with redis.pipeline(transaction=False) as pipe:
            for turn in turns:
                pipe.lrange(log_key(turn), 0, -1)
                pipe.hget(fence_key(turn), "e")
            answers: list[Any] = await pipe.execute()
        for turn, lines, epoch in zip(turns, answers[::2], answers[1::2], strict=True):
            self._logs[turn] = log = [WireFrame.decode(line) for line in lines]
            assert [frame.seq for frame in log] == list(range(1, len(log) + 1)), (
                "I4: a log has a hole or repeats itself"
            )
            both = _authors(log) | _authors(self._shown.get(turn, []))
            assert len(both) <= 1, "I1: the log has another attempt's text than was shown"
            row = self.rows[turn]
            assert int(epoch or 0) <= row["epoch"], "I12: the fence is ahead of the ledger"
            if _content(log) and self.states[turn] not in TERMINAL:
                assert row["visible_at"] is not None, "I3, I5: text is visible that the ledger has not committed to"

    async def look(self, visitor: Visitor) -> None:
        """Tell a watcher what is new, if anything may be."""
        seen_from = (self.rows.get(visitor.turn), self._logs.get(visitor.turn))
        if self._seen_from.get(id(visitor)) == seen_from:
            return
        self._seen_from[id(visitor)] = seen_from
        turn = Located(visitor.turn, TENANT, self.recorded[visitor.turn])
        visitor.told += await self.watcher._read_again(turn, visitor.telling)  # pyright: ignore[reportPrivateUsage] - what `watch` does, without its waiting

    async def _check_told(self, visitor: Visitor) -> None:
        turn, told = visitor.turn, visitor.told
        assert [frame.seq for frame in told] == list(range(len(told))), "I4: a watcher saw a frame twice or not at all"
        assert not any(frame.terminal for frame in told[:-1]), "I2: a watcher was told more after the end"
        shown = self._shown.setdefault(turn, [])
        if turn not in self.forgotten:
            assert all(a == b for a, b in zip(shown, told, strict=False)), "I4: two watchers saw different frames"
        if len(told) > len(shown):
            self._shown[turn] = list(told)
        assert len(_authors(told) | _authors(shown)) <= 1, "I1: text of two attempts is visible"
        if self.states[turn] not in TERMINAL:
            assert not visitor.telling.ended, "I2: a watcher was told the end before there was one"
            return
        answer = frames_of_view(await self.view(turn))
        if turn in self.forgotten:
            assert len(_authors(told) | _authors(answer)) <= 1, "I1: the answer is another attempt's than the text"
        else:
            assert told == answer[: len(told)], "I2, I5: what was told is no beginning of the answer"
            assert not visitor.telling.ended or told[-1].terminal, "I2: a watcher was let go without the end"
        visitor.judged = visitor.telling.ended

    async def view(self, turn: TurnId) -> TurnView:
        """Return an ended turn as the ledger has it."""
        if turn not in self._views:
            view = await load_turn(self.p.engine, turn)
            assert view is not None
            self._views[turn] = view
        return self._views[turn]

    async def check_end(self) -> None:
        """All clocks have run out: everything has ended (I7), and everybody can be told how (I2)."""
        await self.check()
        assert set(self.states.values()) <= TERMINAL, "I7: a turn does not end"
        for turn in self.recorded:
            late = Visitor(turn)
            await self.look(late)
            assert late.told == frames_of_view(await self.view(turn)), "I2: the log does not say what the ledger says"
            assert [frame.terminal for frame in late.told].count(True) == 1, "I2: a turn has not exactly one end"


def _content(frames: list[WireFrame]) -> str:
    return "".join(content_of(frame) for frame in frames if frame.phase is Phase.STREAMING)


def _authors(frames: list[WireFrame]) -> set[str]:
    return set(re.findall(r"\[(\d)\]", _content(frames)))
