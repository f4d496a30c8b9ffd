"""Messages arrive and are prepared, by processes that freeze, are overtaken, die and read again."""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from infra.postgres.inbox import Inbound
from infra.postgres.statements import LedgerUnavailable
from producers.gateway.watch import Watcher
from schemas.ids import TurnId
from schemas.names import TOPIC_TURNS
from schemas.turns import TERMINAL, TurnState
from tests.integration.turns.crew import Crew, Worker
from tests.integration.turns.promises import Ledger, Promises, Visitor
from tests.support.gates import Fault, Process
from tests.support.pipeline import Pipeline
from workers.executor import Executor

T = TypeVar("T")

CONVERSATIONS: Final = ("c1", "c2")
MOST_TURNS: Final = 9
WHICH = st.sampled_from((0, 0, 0, 1, 1, 2, 3, 4))
TRIPS = st.sampled_from((None, None, None, 0, 1, 2, 3))
"""After how many round trips a process is frozen; None: it comes to its end."""


@dataclass
class Parts:
    """The product's parts."""

    runner: asyncio.Runner
    p: Pipeline
    executor: Executor
    watcher: Watcher
    ledger: Ledger


class Arrivals(RuleBasedStateMachine):
    """Two conversations and their orchestrators, and what every process is moved by."""

    parts: Parts

    def __init__(self) -> None:
        super().__init__()
        self.p = self.parts.p
        self.executor = self.parts.executor
        self.promises = Promises(self.p, self.parts.ledger, self.parts.watcher)
        self.topic: list[Inbound] = []
        self.broken = False
        """Whether a promise was broken: what comes after it says nothing."""
        self.read = 0
        """Where the orchestrator reads next."""
        self.committed = 0
        self.first: dict[TurnId, Inbound] = {}
        """The first message of each key."""
        self.crew = Crew(self.executor, self.promises, self.parts.ledger)
        self.frozen: list[tuple[Process[None], Worker | None]] = []

    @property
    def turns(self) -> list[TurnId]:
        """All turns, the latest first."""
        return list(self.promises.recorded)[::-1]

    def waiting(self, *states: TurnState) -> list[TurnId]:
        """Return the turns in one of these states."""
        return self.promises.waiting(*states)

    def do(self, work: Awaitable[T]) -> T:
        """Let the one event loop run until this is done."""

        async def done() -> T:
            return await work

        try:
            return self.parts.runner.run(done())
        except BaseException:
            self.broken = True
            raise

    async def carry(
        self,
        work: Coroutine[Any, Any, None],
        trips: int | None = None,
        fault: Fault = Fault.NONE,
        worker: Worker | None = None,
    ) -> None:
        """Let a process do this, or begin it: it is frozen after so many round trips."""
        await self.go_on(Process(_forgiving(work), fault), worker, trips)

    async def go_on(self, process: Process[None], worker: Worker | None, trips: int | None) -> None:
        """Let a process go on, and see that one with an old claim changes nothing (I12)."""
        before = None if worker is None else self.promises.rows.get(worker.claim.turn_id)
        if not await process.go(trips):
            self.frozen.append((process, worker))
        elif worker is not None:
            worker.busy = False
        await self.promises.check()
        if worker is not None and before is not None:
            self.promises.check_untouched(worker.claim.turn_id, worker.claim.epoch, before)

    # Messages arrive.

    @initialize()
    def nothing_is_there_yet(self) -> None:
        self.do(self._clean())
        for conversation in CONVERSATIONS * 2:
            self.produce(conversation, again=0, other_words=False)
        self.take_in(count=4, commit_lost=False)
        self.prepare_now(self.turns[-1])

    async def _clean(self) -> None:
        await self.parts.ledger.execute(
            "DELETE FROM outbox; DELETE FROM dead_letters; DELETE FROM replay_jobs; DELETE FROM conversations"
        )
        await self.p.redis.flushall()

    @rule(conversation=st.sampled_from(CONVERSATIONS), again=st.integers(0, 3), other_words=st.booleans())
    def produce(self, conversation: str, again: int, *, other_words: bool) -> None:
        """A new message, or a key that was used before with the same words or others."""
        first = list(self.first.values())
        if first and (again or len(first) >= MOST_TURNS):
            number = len(first) - 1 - again % len(first)
            conversation = first[number].event.conversation_id
        else:
            number, other_words = len(first), False
        words = "Something else" if other_words else "Hello there"
        message = self.p.inbound(conversation, words, key=f"message-{number}", offset=len(self.topic))
        self.first.setdefault(TurnId(message.event.turn_id), message)
        self.topic.append(message)

    @precondition(lambda self: self.read < len(self.topic))
    @rule(count=st.integers(1, 4), commit_lost=st.booleans())
    def take_in(self, count: int, *, commit_lost: bool) -> None:
        """A batch is recorded, then its place is committed, or the process dies in between (I10)."""
        batch = self.topic[self.read : self.read + count]
        for item, recorded in zip(batch, self.do(self.p.inbox.record(TOPIC_TURNS, batch)), strict=True):
            turn = TurnId(item.event.turn_id)
            conflict = self.first[turn].event.text != item.event.text
            assert recorded.conflict == conflict, "I9: a key stands for two messages"
            if turn not in self.promises.recorded:
                assert recorded.inserted, "I10: a turn was not recorded"
                self.promises.recorded[turn] = item.event.conversation_id
                self.promises.visit(Visitor(turn, eager=True))
        self.read = self.committed if commit_lost else self.read + len(batch)
        self.committed = max(self.committed, self.read)
        self.do(self.promises.check())

    @precondition(lambda self: self.read > 0)
    @rule(back=st.integers(1, 6))
    def read_again(self, back: int) -> None:
        """Another member of the group starts from an older commit, or an operator replays the topic."""
        self.read = max(0, self.read - back)

    @precondition(lambda self: bool(self.waiting(TurnState.RECEIVED, TurnState.PREPARING)))
    @rule(which=WHICH, trips=TRIPS, overtaken=st.booleans())
    def prepare(self, which: int, trips: int | None, *, overtaken: bool) -> None:
        """An orchestrator prepares a turn; one that is frozen meanwhile may be overtaken by another."""
        turn = one(which, self._heads() or self.waiting(TurnState.RECEIVED, TurnState.PREPARING))
        frozen = len(self.frozen)
        self.do(self.carry(self.p.preparation.run(turn), 1 if overtaken else trips))
        if overtaken and len(self.frozen) > frozen:
            self.do(self.age("lease_until", turn))
            self.prepare_now(turn)
            self.do(self.go_on(*self.frozen.pop(), None))

    def _heads(self) -> list[TurnId]:
        """Return turns that nothing stands before and no lane has yet."""
        rows, states = self.promises.rows, self.promises.states
        first = {rows[turn]["conversation_id"]: turn for turn in self.turns if states[turn] not in TERMINAL}
        return [turn for turn in first.values() if states[turn] in (TurnState.RECEIVED, TurnState.PREPARING)]

    def prepare_now(self, turn: TurnId) -> None:
        """Bring a turn to its lane, if it may go."""
        self.do(self.carry(self.p.preparation.run(turn)))

    async def age(self, clock: str, turn: TurnId) -> None:
        """Move a clock of an open turn an hour into the past."""
        await self.parts.ledger.execute(
            f"UPDATE turns SET {clock} = {clock} - interval '1 hour' "
            "WHERE done_at IS NULL AND turn_id = $1::text::uuid",
            turn,
        )
        await self.promises.check()


async def _forgiving(work: Coroutine[Any, Any, None]) -> None:
    """Do what a process's loop does: while the ledger is away, it is for the next round."""
    with suppress(LedgerUnavailable, OSError):
        await work


def one(which: int, of: list[T]) -> T:
    """Return one of these."""
    return of[which % len(of)]
