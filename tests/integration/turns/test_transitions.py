"""The table of transitions and the statements say the same.

Every statement that moves turns is let loose on a turn in every state, its clocks run out and its epoch right, so that
nothing but the statement itself stands against a step. What then happened is read from the turns' history.
"""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from infra.policy import load_policy
from infra.postgres.claims import Claim
from infra.redis.frame_log import Append, Stream
from schemas.completions import Incomplete
from schemas.dead_letters import DeadLetterReason
from schemas.frames import SEQ_ROUTED, Phase, TurnStreamInfo, render
from schemas.ids import TurnId
from schemas.outcomes import Answer, Answered, Bounded, Truncated
from schemas.turns import TERMINAL, TRANSITIONS, TurnState
from tests.support.pipeline import TENANT, Pipeline, pipeline
from workers.answers.writer import FrameWriter

RESERVED: Final = {
    TurnState.CANCELLED: "visitors cannot take a message back yet",
}
"""Ends that no statement makes yet, each with what the table has them for."""

CUT_OFF: Final = Incomplete("the stream broke")


@dataclass(frozen=True)
class Subject:
    """A turn in some state, and what its present owner would know of it."""

    p: Pipeline
    claim: Claim
    writer: FrameWriter

    @property
    def turn(self) -> TurnId:
        """Return its id."""
        return self.claim.turn_id

    async def settle(self, ending: Answered | Truncated | Bounded) -> None:
        """End it as its worker."""
        await self.p.runtime.executor.settler.settle(self.claim, 0, self.writer, ending)


Step = Callable[[Subject], Awaitable[object]]


async def prepare_and_queue(s: Subject) -> None:
    """What an orchestrator does, in one go."""
    await s.p.preparation.run(s.turn)


async def queue(s: Subject) -> None:
    """The second half of what an orchestrator does, with the plan of another turn."""
    prepared = await s.p.inbox.prepare(await s.p.record(f"another-{s.turn}", "Hello"))
    assert prepared is not None
    plan = await s.p.preparation.plan(prepared)
    await s.p.inbox.queue(replace(prepared, turn_id=s.turn, epoch=s.claim.epoch), plan)


async def prepare_for_a_person(s: Subject) -> None:
    """The same, where a person has the conversation."""
    await s.p.query("UPDATE conversations SET keeper = 'human'")
    await s.p.preparation.run(s.turn)


async def prepare_what_a_person_wrote(s: Subject) -> None:
    """The same, with a turn in which nobody asks."""
    await s.p.query("UPDATE turns SET said_by = 'Ann', content = '<p>Hi</p>', cuts = '{9}', source = 'human'")
    await s.p.preparation.run(s.turn)


async def prepare_spam(s: Subject) -> None:
    """The same, with a message that no model is asked about."""
    await s.p.query("UPDATE turns SET input_text = 'Buy! ' || repeat('https://a.example ', 9)")
    await s.p.preparation.run(s.turn)


STEPS: Final[dict[str, Step]] = {
    "prepare": prepare_and_queue,
    "prepare for a person": prepare_for_a_person,
    "prepare what a person wrote": prepare_what_a_person_wrote,
    "prepare spam": prepare_spam,
    "queue": queue,
    "claim": lambda s: s.p.runtime.executor.claims.claim(s.turn),
    "claim, the primary skipped": lambda s: s.p.runtime.executor.claims.claim(s.turn, skip="open"),
    "rescue": lambda s: s.p.runtime.executor.claims.rescue(s.turn),
    "fall back": lambda s: s.p.runtime.executor.claims.latch_fallback(s.claim, CUT_OFF.code),
    "become visible": lambda s: s.p.runtime.executor.claims.latch_visible(s.claim, 1),
    "answer": lambda s: s.settle(Answered(_answer())),
    "truncate": lambda s: s.settle(Truncated(_answer(), "</p>", CUT_OFF)),
    "fail": lambda s: s.settle(Bounded(reason=DeadLetterReason.BACKEND_FAILED_TWICE, ordinal=2, error=CUT_OFF)),
    "route": lambda s: s.p.routing.route([s.turn]),
    "sweep": lambda s: s.p.sweeper.run_once(),
}

CLOCKS: Final = ("lease_until", "head_at", "hinted_at", "deadline_at")


def _answer() -> Answer:
    """Return an answer."""
    return Answer(html="<p>Hi", cuts=(5,), dimension=None, source="primary", ordinal=1, model="m")


async def subject(p: Pipeline, number: int, state: TurnState, late: tuple[str, ...], log: str) -> Subject:
    """Make a turn, bring it into a worker's hands, and put it into this state with these clocks run out."""
    turn = await p.queue(f"c{number}", "Hello there")
    claim = await p.runtime.executor.claims.claim(turn)
    assert claim is not None
    stream = Stream(turn, TENANT, claim.conversation_id, claim.epoch)
    info = TurnStreamInfo(turn, claim.conversation_id, claim.created)
    if log not in ("forgotten", "spent"):
        await p.frames.arm(stream, render(info, SEQ_ROUTED, Phase.ROUTED))
    if log in ("shown", "whole"):
        shown = render(info, SEQ_ROUTED + 1, Phase.STREAMING, "<p>Hi").encode()
        await p.frames.append([Append(stream, SEQ_ROUTED + 1, (shown,), finished=log == "whole")])
    moved = ", ".join(f"{c} = clock_timestamp() - interval '{1 if c in late else -1} hour'" for c in CLOCKS)
    await p.query(
        f"UPDATE turns SET state = :s, {moved}, done_at = CASE WHEN :done THEN clock_timestamp() END "
        "WHERE turn_id = CAST(:t AS uuid)",
        s=state,
        done=state in TERMINAL,
        t=turn,
    )
    for table in ("turn_events", "attempts"):
        await p.query(f"DELETE FROM {table} WHERE turn_id = CAST(:t AS uuid)", t=turn)
    if log == "spent":
        await p.query(
            "INSERT INTO attempts (turn_id, ordinal, epoch, model) VALUES (CAST(:t AS uuid), 2, :e, 'm')",
            t=turn,
            e=claim.epoch,
        )
    return Subject(p, claim, FrameWriter(stream=stream, info=info))


async def steps_of_a_follower(p: Pipeline, number: int, ending: Answered | Truncated) -> set[tuple[str, str]]:
    """Return the steps of a turn that is answered together with the one before it."""
    head = await subject(p, number, TurnState.STREAMING, (), "shown")
    follower = await p.record(f"c{number}", "and by hand")
    await p.query(
        "UPDATE turns SET coalesced_into = CAST(:h AS uuid) WHERE turn_id = CAST(:t AS uuid)", h=head.turn, t=follower
    )
    await p.query("DELETE FROM turn_events WHERE turn_id = CAST(:t AS uuid)", t=follower)
    await head.settle(ending)
    return await steps_of(p, follower)


async def steps_of_spam_behind_spam(p: Pipeline, number: int) -> set[tuple[str, str]]:
    """Return the steps of a turn that is refused together with the one before it."""
    head = await subject(p, number, TurnState.PREPARING, CLOCKS, "forgotten")
    follower = await p.record(f"c{number}", "https://b.example " * 9)
    await p.query(
        "UPDATE turns SET coalesced_into = CAST(:h AS uuid) WHERE turn_id = CAST(:t AS uuid)", h=head.turn, t=follower
    )
    await p.query("DELETE FROM turn_events WHERE turn_id = CAST(:t AS uuid)", t=follower)
    await prepare_spam(head)
    return await steps_of(p, follower)


async def test_the_table_says_what_statements_do(database_url: str, redis_url: str) -> None:
    """Every step that a statement can make is in the table, and every step of the table but reserved ones is made."""
    made: set[tuple[str, str]] = set()
    policy = load_policy()
    number = itertools.count()
    for answer in ("bounded", "human"):
        chosen = policy.model_copy(update={"without_answer": answer})
        async with pipeline(database_url, redis_url, policy=chosen) as p:
            steps = STEPS if answer == "bounded" else ("fail", "route", "sweep")
            for name, state in itertools.product(steps, TurnState):
                for late, log in itertools.product(*circumstances(name, state)):
                    it = await subject(p, next(number), state, late, log)
                    await STEPS[name](it)
                    made |= await steps_of(p, it.turn)
                    await p.query("DELETE FROM conversations")
            for ending in (Answered(_answer()), Truncated(_answer(), "</p>", CUT_OFF)):
                made |= await steps_of_a_follower(p, next(number), ending)
            made |= await steps_of_spam_behind_spam(p, next(number))
            await p.query("DELETE FROM tenants")
    tabled = {(before.value, after.value) for before, following in TRANSITIONS.items() for after in following}

    assert made - tabled == set(), "statements make steps that the table does not allow"
    assert {step for step in tabled - made if TurnState(step[1]) not in RESERVED} == set(), "nobody makes these"
    assert {after for _, after in made} & {state.value for state in RESERVED} == set(), "these are reserved no more"


def circumstances(name: str, state: TurnState) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return which clocks may have run out, and what may have become of the log, where it makes a difference."""
    if name != "sweep":
        return [("lease_until",)], ["forgotten", "spent"] if state is TurnState.RESCUE else ["forgotten"]
    logs = ["forgotten"]
    if state is TurnState.RESCUE:
        logs += ["spent"]
    elif state in (TurnState.STREAMING, TurnState.SEALING):
        logs += ["armed", "shown", "whole"]
    return [(), *((clock,) for clock in CLOCKS)], logs


async def steps_of(p: Pipeline, turn: TurnId) -> set[tuple[str, str]]:
    """Return what happened to a turn."""
    events = await p.query("SELECT from_state, to_state FROM turn_events WHERE turn_id = CAST(:t AS uuid)", t=turn)
    return {(str(event["from_state"]), str(event["to_state"])) for event in events}
