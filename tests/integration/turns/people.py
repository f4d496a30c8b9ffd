"""Random lives in which people take conversations over at any time, write in them and give them back."""

from typing import Final

import hypothesis.strategies as st
from hypothesis.stateful import precondition, rule

from infra.postgres.keepers import Keepers, Message
from schemas.agents import Lane
from schemas.ids import TurnId, turn_id_for
from schemas.turns import TERMINAL, TurnState
from tests.integration.turns.arrivals import CONVERSATIONS, TRIPS, WHICH, one
from tests.integration.turns.life import Life
from tests.support.gates import Fault
from tests.support.pipeline import TENANT

CONVERSATION = st.sampled_from(CONVERSATIONS)
MOST_SAID: Final = 4


class Peopled(Life):
    """What `Life` has, and people beside its agents."""

    def __init__(self) -> None:
        super().__init__()
        self.keepers = Keepers(self.p.engine, tenant=TENANT, operator="ops")
        self.said = 0

    @rule(conversation=CONVERSATION, noticed=st.booleans(), trips=TRIPS)
    def take(self, conversation: str, *, noticed: bool, trips: int | None) -> None:
        """A person takes over; an orchestrator may look at the head at once, and be frozen at it."""
        self._take(conversation)
        if noticed and (head := self._head(conversation)) is not None:
            self.do(self.carry(self.p.preparation.run(head), trips))

    @precondition(lambda self: bool(self.promises.silenced))
    @rule(which=WHICH, noticed=st.booleans())
    def give_back(self, which: int, *, noticed: bool) -> None:
        self._give_back(one(which, sorted(self.promises.silenced)), noticed=noticed)

    @precondition(lambda self: bool(self.promises.silenced) and self.said < MOST_SAID)
    @rule(which=WHICH, noticed=st.booleans())
    def say(self, which: int, *, noticed: bool) -> None:
        """A person writes, and presses twice."""
        conversation = one(which, sorted(self.promises.silenced))
        self.said += 1
        turn = turn_id_for(TENANT, f"said-{self.said}")
        message = Message(turn_id=turn, html="<p>Ann</p>", digest="d", name=None, traceparent=None)
        for _ in range(2):
            self.do(self.keepers.say(conversation, message))
        self.do(self.promises.check())
        if noticed and (head := self._head(conversation)) is not None:
            self.prepare_now(head)

    @precondition(lambda self: bool(self.waiting(TurnState.RECEIVED, TurnState.QUEUED)))
    @rule(
        which=WHICH,
        how=st.sampled_from(("say", "silent", "fail", "rescued")),
        noticed=st.booleans(),
        given_back=st.booleans(),
    )
    def take_from_under(self, which: int, how: str, *, noticed: bool, given_back: bool) -> None:
        """A person takes over while a worker has its first words, its silent answer or its failure in hand."""
        for turn in self.waiting(TurnState.RECEIVED):
            self.prepare_now(turn)
        if not (queued := self.waiting(TurnState.QUEUED)):
            return
        turn = one(which, queued)
        conversation = self.promises.recorded[turn]
        if how == "rescued":
            self.do(self.age("head_at", turn))
            self.sweep(None, Fault.NONE)
        worker = self._claim(turn, Lane.FRONTIER_FALLBACK if how == "rescued" else Lane.DISCOVERY)
        if worker is None:
            return
        self._now(worker, "arm", Fault.AWAY if how == "silent" else Fault.NONE)
        if how == "silent":
            self._now(worker, "say")
        self._take(conversation)
        if noticed:
            self.prepare_now(turn)
        self._now(worker, {"silent": "end", "fail": "fail"}.get(how, "say"))
        if given_back:
            self._give_back(conversation, noticed=True)

    def _head(self, conversation: str) -> TurnId | None:
        states = self.promises.states
        return next(
            (t for t, c in self.promises.recorded.items() if c == conversation and states[t] not in TERMINAL), None
        )

    def _take(self, conversation: str) -> None:
        self.do(self.promises.check())
        self.do(self.keepers.take(conversation, name="Ann", reason=""))
        self.promises.silenced.add(conversation)

    def _give_back(self, conversation: str, *, noticed: bool) -> None:
        self.do(self.promises.check())
        self.do(self.keepers.give_back(conversation))
        self.promises.silenced.discard(conversation)
        if noticed and (head := self._head(conversation)) is not None:
            self.prepare_now(head)
