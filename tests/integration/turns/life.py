"""Random lives of turns on the real statements and the real scripts: every verb, by anybody, at any time.

A worker here is what a worker process knows: its claim, its writer, how its model call ended. Nothing makes it stop
when its lease ends, so every worker may at any time be one that was frozen and goes on with an old claim. Whatever
takes several round trips may also stop between them, go on after anything else, or never: workers, orchestrators and
upkeep alike. Kafka is a list that is read in batches, again from any earlier place, with its commits lost. After each
step `promises` compares what ledger, logs and watchers say with what was promised; at the end all clocks run out and
upkeep ends whatever is left. Dead letters are routed and delivered again by operators who press twice.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from infra.postgres.inbox import Inbound
from infra.postgres.letter_views import Owner
from infra.postgres.replay_runs import ReplayRuns
from infra.postgres.replays import ReplayRequest, create
from infra.postgres.statements import LedgerUnavailable
from producers.gateway.watch import FROM_THE_START, Telling, Watcher
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import TOPIC_TURNS
from schemas.turns import OPEN, TERMINAL, TurnState
from tests.integration.turns.crew import Crew, Worker, verbs
from tests.integration.turns.promises import Ledger, Promises, Visitor
from tests.support.gates import Fault, Process
from tests.support.pipeline import TENANT, Pipeline
from workers.executor import Executor

T = TypeVar("T")

CONVERSATIONS: Final = ("c1", "c2")
MOST_TURNS: Final = 9
MOST_VISITORS: Final = 16
WHICH = st.sampled_from((0, 0, 0, 1, 1, 2, 3, 4))
TRIPS = st.sampled_from((None, None, None, 0, 1, 2, 3))
"""After how many round trips a process is frozen; None: it comes to its end."""
FAR = st.sampled_from((None, None, 4, 5, 6))
"""After how many round trips a sweep is frozen that has only just taken turns from their owners."""
LAST = st.sampled_from(("say", "end", "checkpoint", "fail"))
FAULT = st.sampled_from((*(Fault.NONE,) * 5, Fault.AWAY, Fault.UNHEARD, Fault.LEDGER_UNHEARD))
SHIFT = st.lists(st.tuples(WHICH, st.integers(0, 11), st.booleans(), TRIPS, FAULT), min_size=2, max_size=5)
"""What workers do in one step: which of them, which of its verbs, whether it is published at once, and what happens."""
Shift = list[tuple[int, int, bool, int | None, Fault]]

CLOCKS: Final = ("lease_until",) * 5 + ("head_at", "hinted_at", "deadline_at")
_RUN_OUT: Final = """
UPDATE turns SET lease_until = lease_until - interval '1 day', head_at = head_at - interval '1 day',
                 deadline_at = deadline_at - interval '1 day', hinted_at = hinted_at - interval '1 day'
WHERE done_at IS NULL
"""
SHOWING: Final = (TurnState.RUNNING, TurnState.FALLBACK, TurnState.STREAMING, TurnState.SEALING)
CARRIED: Final = (TurnState.QUEUED, TurnState.RESCUE, *SHOWING)


@dataclass
class Parts:
    """The product's parts."""

    runner: asyncio.Runner
    p: Pipeline
    executor: Executor
    watcher: Watcher
    ledger: Ledger


class Life(RuleBasedStateMachine):
    """Two conversations, any number of workers, watchers, orchestrators and upkeep processes."""

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
        for conversation in CONVERSATIONS:
            self.produce(conversation, again=0, other_words=False)
        self.take_in(count=2, commit_lost=False)
        for turn in self.turns:
            self.prepare_now(turn)

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
        turn = _one(which, self.waiting(TurnState.RECEIVED, TurnState.PREPARING))
        frozen = len(self.frozen)
        self.do(self.carry(self.p.preparation.run(turn), 1 if overtaken else trips))
        if overtaken and len(self.frozen) > frozen:
            self.do(self._age("lease_until", turn))
            self.prepare_now(turn)
            self.do(self.go_on(*self.frozen.pop(), None))

    def prepare_now(self, turn: TurnId) -> None:
        """Bring a turn to its lane, if it may go."""
        self.do(self.carry(self.p.preparation.run(turn)))

    # Workers carry them.

    @precondition(lambda self: bool(self.waiting(TurnState.QUEUED, TurnState.RESCUE)))
    @rule(which=WHICH, late=st.booleans(), skip=st.booleans())
    def hint(self, which: int, *, late: bool, skip: bool) -> None:
        """A hint arrives twice in each lane, for a turn that waits or for any; a breaker may skip the primary."""
        turn = _one(which, self.turns if late else self.waiting(TurnState.QUEUED, TurnState.RESCUE))
        for lane in (Lane.DISCOVERY, Lane.FRONTIER_FALLBACK) * 2:
            self._claim(turn, lane, skip=skip)

    def _claim(self, turn: TurnId, lane: Lane, *, skip: bool = False) -> Worker | None:
        claims = self.executor.claims
        if lane is Lane.FRONTIER_FALLBACK:
            claim = self.do(claims.rescue(turn))
        else:
            self.promises.skipped |= {turn} if skip else set()
            claim = self.do(claims.claim(turn, skip="open" if skip else None))
        self.do(self.promises.check())
        if claim is None:
            return None
        self.crew.workers.append(Worker(claim, claim.ordinal))
        return self.crew.workers[-1]

    @rule(conversation=st.sampled_from(CONVERSATIONS), armed=st.booleans(), fault=FAULT, shift=SHIFT)
    def carry_whatever_waits(self, conversation: str, *, armed: bool, fault: Fault, shift: Shift) -> None:
        """Get turns into mid-stream often: without this, most of them would end in their lanes."""
        if not self.waiting(*OPEN) and len(self.first) < MOST_TURNS:
            self.produce(conversation, again=0, other_words=False)
        if self.read < len(self.topic):
            self.take_in(len(self.topic), commit_lost=False)
        for turn in self.waiting(TurnState.RECEIVED):
            self.prepare_now(turn)
        for turn in self.waiting(TurnState.QUEUED, TurnState.RESCUE):
            worker = self._claim(turn, Lane.DISCOVERY) or self._claim(turn, Lane.FRONTIER_FALLBACK)
            if worker is not None and armed:
                self._now(worker, "arm", fault)
        self._work(shift)

    @precondition(lambda self: bool(self.crew.workers))
    @rule(shift=SHIFT)
    def work(self, shift: Shift) -> None:
        self._work(shift)

    @precondition(lambda self: bool(self.waiting(TurnState.RECEIVED, TurnState.QUEUED)))
    @rule(which=WHICH, trips=FAR, last=LAST)
    def answer_silently_and_lose(self, which: int, trips: int | None, last: str) -> None:
        """A worker that could not reach Redis has its answer ready when a rescuer has taken its turn."""
        for turn in self.waiting(TurnState.RECEIVED):
            self.prepare_now(turn)
        if not (queued := self.waiting(TurnState.QUEUED)):
            return
        turn = _one(which, queued)
        loser = self._claim(turn, Lane.DISCOVERY)
        if loser is None:
            return
        self._now(loser, "arm", Fault.AWAY)
        self._now(loser, "say")
        self.do(self._age("lease_until", turn))
        self.sweep(trips, Fault.NONE)
        rescuer = self._claim(turn, Lane.FRONTIER_FALLBACK)
        self._now(loser, last)
        if rescuer is not None:
            self._now(rescuer, "arm")
            self._now(rescuer, "say")

    @precondition(lambda self: bool(self._carrying()))
    @rule(which=WHICH, unshown=st.booleans(), last=LAST, trips=FAR, shift=SHIFT)
    def lose_and_go_on(self, which: int, *, unshown: bool, last: str, trips: int | None, shift: Shift) -> None:
        """A worker loses its turn to a rescuer without noticing, and both go on, the loser first."""
        loser = _one(which, self._carrying())
        turn = loser.claim.turn_id
        if loser.writer is None:
            self._now(loser, "arm")
        if unshown:
            self._now(loser, "say", flush=False)
            self._now(loser, "checkpoint")
        self.do(self._age("lease_until", turn))
        self.sweep(trips, Fault.NONE)
        rescuer = self._claim(turn, Lane.FRONTIER_FALLBACK)
        if rescuer is not None:
            self._now(rescuer, "arm")
        if loser in self.crew.workers:
            self._now(loser, last if last in verbs(loser) else verbs(loser)[0])
        if rescuer is not None:
            self._now(rescuer, "say")
        self._work(shift, [loser, *([rescuer] if rescuer is not None else [])])

    @precondition(lambda self: bool(self.waiting(TurnState.RECEIVED, TurnState.QUEUED)))
    @rule(which=WHICH, trips=FAR)
    def wait_too_long(self, which: int, trips: int | None) -> None:
        """Nobody takes a turn from its lane, until upkeep gives it to a rescuer."""
        for turn in self.waiting(TurnState.RECEIVED):
            self.prepare_now(turn)
        if queued := self.waiting(TurnState.QUEUED):
            turn = _one(which, queued)
            self.do(self._age("head_at", turn))
            self.sweep(trips, Fault.NONE)
            self._claim(turn, Lane.FRONTIER_FALLBACK)

    def _carrying(self) -> list[Worker]:
        """Return workers that could do something, those of turns that are theirs first."""
        able = [worker for worker in self.crew.workers[::-1] if not worker.busy]
        rows = self.promises.rows
        return sorted(able, key=lambda worker: rows[worker.claim.turn_id]["epoch"] != worker.claim.epoch)

    def _now(self, worker: Worker, verb: str, fault: Fault = Fault.NONE, *, flush: bool = True) -> None:
        if not worker.busy and verb in verbs(worker):
            worker.busy = True
            self.do(self.carry(self.crew.step(worker, verb, flush=flush), None, fault, worker))

    def _work(self, shift: Shift, only: list[Worker] | None = None) -> None:
        for which, verb, flush, trips, fault in shift:
            able = [w for w in self.crew.workers[::-1] if not w.busy and (only is None or w in only)]
            if able:
                worker = _one(which, able)
                worker.busy = True
                name = _one(verb, list(verbs(worker)))
                self.do(self.carry(self.crew.step(worker, name, flush=flush), trips, fault, worker))

    # Time passes, upkeep sweeps, processes thaw or die, Redis forgets.

    @precondition(lambda self: bool(self.waiting(*CARRIED)))
    @rule(which=WHICH, clock=st.sampled_from(CLOCKS), swept=st.booleans(), trips=TRIPS)
    def time_is_up(self, which: int, clock: str, *, swept: bool, trips: int | None) -> None:
        waiting = self.waiting(TurnState.PREPARING, *SHOWING) if clock == "lease_until" else self.waiting(*OPEN)
        if waiting:
            self.do(self._age(clock, _one(which, waiting)))
        if waiting and swept:
            self.sweep(trips=trips, fault=Fault.NONE)

    async def _age(self, clock: str, turn: TurnId) -> None:
        """Move a clock of an open turn an hour into the past."""
        await self.parts.ledger.execute(
            f"UPDATE turns SET {clock} = {clock} - interval '1 hour' "
            "WHERE done_at IS NULL AND turn_id = $1::text::uuid",
            turn,
        )
        await self.promises.check()

    @precondition(lambda self: bool(self.waiting(*OPEN)))
    @rule(trips=st.one_of(TRIPS, st.integers(5, 9)), fault=FAULT)
    def sweep(self, trips: int | None, fault: Fault) -> None:
        self.do(self.carry(self.p.sweeper.run_once(), trips, fault))

    @precondition(lambda self: bool(self.waiting(TurnState.STREAMING, TurnState.SEALING)))
    @rule(which=WHICH, trips=st.integers(4, 8))
    def sweep_beside(self, which: int, trips: int) -> None:
        """An upkeep process is frozen while it seals, and overtaken by another that takes the same turn over."""
        turn = _one(which, self.waiting(TurnState.STREAMING, TurnState.SEALING))
        frozen = len(self.frozen)
        self.do(self._age("lease_until", turn))
        self.sweep(trips, Fault.NONE)
        self.do(self._age("lease_until", turn))
        self.sweep(None, Fault.NONE)
        if len(self.frozen) > frozen:
            self.do(self.go_on(*self.frozen.pop(), None))

    @precondition(lambda self: bool(self.frozen))
    @rule(which=WHICH, trips=TRIPS)
    def thaw(self, which: int, trips: int | None) -> None:
        self.do(self.go_on(*self.frozen.pop(which % len(self.frozen)), trips))

    @precondition(lambda self: bool(self.frozen))
    @rule(which=WHICH)
    def die_where_it_stands(self, which: int) -> None:
        process, worker = self.frozen.pop(which % len(self.frozen))
        self.do(process.kill())
        if worker is not None:
            self.crew.leave(worker)

    @precondition(lambda self: bool(self.waiting(TurnState.STREAMING, TurnState.SEALING)))
    @rule()
    def redis_forgets(self) -> None:
        self.do(self.p.redis.flushall())
        self.promises.forgotten |= {turn for turn in self.turns if self.promises.states[turn] not in TERMINAL}
        self.do(self.promises.check())

    # Dead letters are routed, and operators have them answered again.

    @precondition(lambda self: bool(self.waiting(TurnState.RESCUE)))
    @rule(trips=TRIPS, fault=FAULT)
    def route(self, trips: int | None, fault: Fault) -> None:
        self.do(self.carry(self.p.route_dead_letters(), trips, fault))

    @precondition(lambda self: bool(self.waiting(*TERMINAL)))
    @rule(late=st.booleans())
    def deliver(self, *, late: bool) -> None:
        """An operator asks for answers to be shown, and presses twice."""
        request = ReplayRequest(
            where="state=unanswered", mode="deliver", rate=100, most=100, stop_percent=100, late=late
        )
        for _ in range(2):
            self.do(create(self.p.engine, Owner(TENANT, installation=False), request, operator="ops"))
        self.do(self.carry(self._replay(0)))
        self.do(self.carry(self._replay(1)))

    @rule(which=st.sampled_from((0, 1)), trips=TRIPS, owner_lost=st.booleans())
    def replay(self, which: int, trips: int | None, *, owner_lost: bool) -> None:
        if owner_lost:
            self.do(self.parts.ledger.execute("UPDATE replay_jobs SET lease_until = lease_until - interval '1 hour'"))
        self.do(self.carry(self._replay(which), trips))

    async def _replay(self, which: int) -> None:
        """What one of two processes does for replay jobs, without their pace."""
        runs = ReplayRuns(self.p.engine, owner=f"replays@{which}", lease=15, waiting=600, history=10)
        await runs.book(50)
        for job in await runs.lease(8):
            await runs.deliver(job, 5)

    # Visitors watch.

    @precondition(lambda self: 0 < len(self.promises.visitors) < MOST_VISITORS)
    @rule(which=WHICH, back=st.integers(0, 3))
    def come_back(self, which: int, back: int) -> None:
        """A watcher that lost its connection resumes, anywhere in what it has seen; later others look again, too."""
        earlier = _one(which, self.promises.visitors[::-1])
        told = earlier.told[: max(0, len(earlier.told) - back)]
        visitor = Visitor(earlier.turn, Telling(told[-1].seq if told else FROM_THE_START), told)
        self.promises.visit(visitor)
        for looking in (earlier, visitor):
            self.do(self.promises.look(looking))
        self.do(self.promises.check())

    # And in the end.

    def teardown(self) -> None:
        """Half of what was frozen thaws, the rest dies; then time runs out (I7)."""
        try:
            if not self.broken:
                self.do(self._end())
        finally:
            for process, _ in self.frozen:
                self.do(process.kill())

    async def _end(self) -> None:
        for process, worker in self.frozen[::2]:
            await self.go_on(process, worker, None)
        for _ in range(6):
            if await self.parts.ledger.execute(_RUN_OUT) == "UPDATE 0":
                break
            await self.carry(self.p.sweeper.run_once())
            await self.carry(self.p.route_dead_letters())
        await self.promises.check_end()


async def _forgiving(work: Coroutine[Any, Any, None]) -> None:
    """Do what a process's loop does: while the ledger is away, it is for the next round."""
    with suppress(LedgerUnavailable, OSError):
        await work


def _one(which: int, of: list[T]) -> T:
    return of[which % len(of)]
