"""Random lives of turns on the real statements and the real scripts: every verb, by anybody, at any time.

A worker here is what a worker process knows: its claim, its writer, how its model call ended. Nothing makes it stop
when its lease ends, so every worker may at any time be one that was frozen and goes on with an old claim. Whatever
takes several round trips may also stop between them, go on after anything else, or never: workers, orchestrators and
upkeep alike. Kafka is a list that is read in batches, again from any earlier place, with its commits lost. After each
step `promises` compares what ledger, logs and watchers say with what was promised; at the end all clocks run out and
upkeep ends whatever is left. Dead letters are routed and delivered again by operators who press twice.
"""

from typing import Final

import hypothesis.strategies as st
from hypothesis.stateful import precondition, rule

from infra.postgres.letter_views import Owner
from infra.postgres.replay_runs import ReplayRuns
from infra.postgres.replays import ReplayRequest, create
from producers.gateway.watch import FROM_THE_START, Telling
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import fence_key, log_key
from schemas.turns import OPEN, TERMINAL, TurnState
from tests.integration.turns.arrivals import CONVERSATIONS, MOST_TURNS, TRIPS, WHICH, Arrivals, one
from tests.integration.turns.crew import Worker, verbs
from tests.integration.turns.promises import Visitor
from tests.support.gates import Fault
from tests.support.pipeline import TENANT

MOST_VISITORS: Final = 16
FAR = st.sampled_from((None, None, 4, 5, 6, 6))
"""After how many round trips a sweep is frozen that has only just taken turns from their owners."""
LAST = st.sampled_from(("say", "say", "end", "checkpoint", "fail"))
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


class Life(Arrivals):
    """Any number of workers, watchers and upkeep processes, operators and dead-letter workers."""

    # Workers carry them.

    @precondition(lambda self: bool(self.waiting(TurnState.QUEUED, TurnState.RESCUE)))
    @rule(which=WHICH, late=st.booleans(), skip=st.booleans())
    def hint(self, which: int, *, late: bool, skip: bool) -> None:
        """A hint arrives twice in each lane, for a turn that waits or for any; a breaker may skip the primary."""
        turn = one(which, self.turns if late else self.waiting(TurnState.QUEUED, TurnState.RESCUE))
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
    @rule(which=WHICH, trips=FAR, how=st.sampled_from(("armed", "failing", "silent", "late")))
    def lose_unseen(self, which: int, trips: int | None, how: str) -> None:
        """A worker has its first words, or its answer if Redis was away, or nothing yet, when another has its turn."""
        for turn in self.waiting(TurnState.RECEIVED):
            self.prepare_now(turn)
        if not (queued := self.waiting(TurnState.QUEUED)):
            return
        turn = one(which, queued)
        loser = self._claim(turn, Lane.DISCOVERY)
        if loser is None:
            return
        if how != "late":
            self._now(loser, "arm", Fault.AWAY if how == "silent" else Fault.NONE)
        if how == "silent":
            self._now(loser, "say")
        self.do(self.age("lease_until", turn))
        self.sweep(trips, Fault.NONE)
        rescuer = self._claim(turn, Lane.FRONTIER_FALLBACK)
        if rescuer is not None and how == "late":
            self._now(rescuer, "arm")
            self.redis_forgets()
        self._now(loser, {"armed": "say", "failing": "fail", "silent": "end", "late": "arm"}[how])
        if rescuer is not None:
            self._now(rescuer, "arm")
            self._now(rescuer, "say")

    @precondition(lambda self: bool(self._carrying()))
    @rule(which=WHICH, unshown=st.booleans(), forgets=st.booleans(), last=LAST, trips=FAR, shift=SHIFT)
    def lose_and_go_on(
        self, which: int, *, unshown: bool, forgets: bool, last: str, trips: int | None, shift: Shift
    ) -> None:
        """A worker loses its turn to a rescuer without noticing, and both go on, the loser first."""
        loser = one(which, self._carrying())
        turn = loser.claim.turn_id
        if loser.writer is None:
            self._now(loser, "arm")
        if unshown:
            self._now(loser, "say", flush=False)
            self._now(loser, "checkpoint")
        elif forgets:
            self._now(loser, "say")
            self.redis_forgets()
        frozen = len(self.frozen)
        self.do(self.age("lease_until", turn))
        self.sweep(trips, Fault.NONE)
        rescuer = self._claim(turn, Lane.FRONTIER_FALLBACK)
        if rescuer is not None:
            self._now(rescuer, "arm")
        if loser in self.crew.workers:
            self._now(loser, last if last in verbs(loser) else verbs(loser)[0])
        if rescuer is not None:
            self._now(rescuer, "say")
        if len(self.frozen) > frozen:
            self.do(self.go_on(*self.frozen.pop(), None))
        self._work(shift, [loser, *([rescuer] if rescuer is not None else [])])

    @precondition(lambda self: bool(self.waiting(TurnState.RECEIVED, TurnState.QUEUED)))
    @rule(which=WHICH, trips=FAR)
    def wait_too_long(self, which: int, trips: int | None) -> None:
        """Nobody takes a turn from its lane, until upkeep gives it to a rescuer."""
        for turn in self.waiting(TurnState.RECEIVED):
            self.prepare_now(turn)
        if queued := self.waiting(TurnState.QUEUED):
            turn = one(which, queued)
            self.do(self.age("head_at", turn))
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
                worker = one(which, able)
                worker.busy = True
                name = one(verb, list(verbs(worker)))
                self.do(self.carry(self.crew.step(worker, name, flush=flush), trips, fault, worker))

    # Time passes, upkeep sweeps, processes thaw or die, Redis forgets.

    @precondition(lambda self: bool(self.waiting(*CARRIED)))
    @rule(which=WHICH, clock=st.sampled_from(CLOCKS), swept=st.booleans(), trips=TRIPS)
    def time_is_up(self, which: int, clock: str, *, swept: bool, trips: int | None) -> None:
        waiting = self.waiting(TurnState.PREPARING, *SHOWING) if clock == "lease_until" else self.waiting(*OPEN)
        if waiting:
            self.do(self.age(clock, one(which, waiting)))
        if waiting and swept:
            self.sweep(trips=trips, fault=Fault.NONE)

    @precondition(lambda self: bool(self.waiting(*OPEN)))
    @rule(trips=st.one_of(TRIPS, st.integers(5, 9)), fault=FAULT)
    def sweep(self, trips: int | None, fault: Fault) -> None:
        self.do(self.carry(self.p.sweeper.run_once(), trips, fault))

    @precondition(lambda self: bool(self.waiting(TurnState.STREAMING, TurnState.SEALING)))
    @rule(which=WHICH, trips=st.integers(4, 8))
    def sweep_beside(self, which: int, trips: int) -> None:
        """An upkeep process is frozen while it seals, and overtaken by another that takes the same turn over."""
        turn = one(which, self.waiting(TurnState.STREAMING, TurnState.SEALING))
        frozen = len(self.frozen)
        self.do(self.age("lease_until", turn))
        self.sweep(trips, Fault.NONE)
        self.do(self.age("lease_until", turn))
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

    @precondition(lambda self: bool(self.waiting(TurnState.STREAMING)))
    @rule(which=WHICH)
    def redis_goes_back(self, which: int) -> None:
        """Redis comes back with a log as it was a moment before."""
        turn = one(which, self.waiting(TurnState.STREAMING))
        if self.do(self.p.redis.llen(log_key(turn))) > 1:
            self.do(self.p.redis.rpop(log_key(turn)))
            self.do(self.p.redis.hincrby(fence_key(turn), "n", -1))
            self.promises.forgotten.add(turn)
        self.do(self.promises.check())

    @precondition(lambda self: bool(self._carrying()))
    @rule(which=WHICH)
    def publish_unheard(self, which: int) -> None:
        """The log takes a frame, its answer is lost, and it is sent again."""
        worker = one(which, self._carrying())
        for verb, fault in (("arm", Fault.NONE), ("say", Fault.NONE), ("say", Fault.UNHEARD), ("publish", Fault.NONE)):
            self._now(worker, verb, fault)

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
        earlier = one(which, self.promises.visitors[::-1])
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
