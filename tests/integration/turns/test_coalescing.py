"""Messages that wait for the same turn are answered together where the policy says so, and none is lost for it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from infra.policy import load_policy
from infra.postgres.coalescing import MOST_ABSORBED, MOST_CHARACTERS
from infra.postgres.replays import create
from infra.postgres.settlement import ANY_UNSEEN, Settled, Settlement, settle
from infra.postgres.views import frames_of_view, load_turn
from schemas.agents import Lane
from schemas.events import TurnSettled
from schemas.frames import Phase, WireFrame
from schemas.ids import TurnId
from schemas.names import TOPIC_RESULTS
from schemas.turns import CHANNEL_OPENAI, TurnState
from tests.support.dead import OWNER, StandIn, asked_for, runner, work
from tests.support.pipeline import TENANT, Pipeline, content_of, patient, pipeline

MESSAGES = ("Hello there", "we count stock by hand", "in two warehouses")


@asynccontextmanager
async def _coalescing(database_url: str, redis_url: str, *, coalesce: bool = True) -> AsyncGenerator[Pipeline]:
    policy = patient(load_policy()).model_copy(update={"coalesce": coalesce})
    async with pipeline(database_url, redis_url, policy=policy) as p:
        yield p


async def _burst(p: Pipeline, messages: Sequence[str] = MESSAGES) -> list[TurnId]:
    """Record the messages and bring the first of them to its lane."""
    turns = [await p.record("c1", message) for message in messages]
    await p.preparation.run(turns[0])
    return turns


async def _groups(p: Pipeline, turns: Sequence[TurnId]) -> list[int | None]:
    """Return for each turn the place of the turn it is answered in."""
    heads = [(await p.row(turn))["coalesced_into"] for turn in turns]
    return [turns.index(TurnId(str(head))) if head else None for head in heads]


async def _states(p: Pipeline, turns: Sequence[TurnId]) -> list[str]:
    return [str((await p.row(turn))["state"]) for turn in turns]


async def _age(p: Pipeline, turn: TurnId, column: str, seconds: float) -> None:
    await p.query(
        f"UPDATE turns SET {column} = {column} - make_interval(secs => :s) WHERE turn_id = CAST(:t AS uuid)",
        s=seconds,
        t=turn,
    )


async def _retold(p: Pipeline, turn: TurnId) -> list[WireFrame]:
    """Return the turn's frames above `accepted`, as the ledger tells them."""
    view = await load_turn(p.engine, turn)
    assert view is not None
    return [frame for frame in frames_of_view(view) if frame.seq >= 1]


async def _ended_with(p: Pipeline, head: TurnId, others: Sequence[TurnId], state: str) -> None:
    """Assert that the whole group has ended in `state`, and that only the head's ending says anything."""
    phase = (await p.log(head))[-1].phase
    assert (await p.row(head))["state"] == state
    for turn in others:
        row = await p.row(turn)
        assert (row["state"], row["reason"], row["content"], row["closing"]) == (state, "coalesced", "", None)
        [frame] = frames = await p.log(turn)
        assert (frame.seq, frame.phase) == (1, phase)
        assert json.loads(frame.json)["fairlead"]["answered_in"] == head
        assert content_of(frames) == ""
        assert frames == await _retold(p, turn)
        assert await p.query("SELECT 1 FROM attempts WHERE turn_id = CAST(:t AS uuid)", t=turn) == []
        assert await p.query("SELECT 1 FROM dead_letters WHERE turn_id = CAST(:t AS uuid)", t=turn) == []
        assert await p.query("SELECT 1 FROM turn_records WHERE turn_id = CAST(:t AS uuid)", t=turn) == []
        events = await p.query(
            "SELECT from_state, to_state, note FROM turn_events WHERE turn_id = CAST(:t AS uuid) ORDER BY event_id",
            t=turn,
        )
        assert events[1:] == [{"from_state": "received", "to_state": state, "note": "coalesced"}]


async def test_what_waits_is_answered_with_the_head_by_one_call(database_url: str, redis_url: str) -> None:
    """Three waiting messages make one model call that hears all of them, one answer, and three endings in order."""
    async with _coalescing(database_url, redis_url) as p:
        head, *others = await _burst(p)
        assert await _states(p, [head, *others]) == ["queued", "received", "received"]

        claim = await p.runtime.executor.claims.claim(head)
        assert claim is not None
        assert claim.text == "Hello there\n\nwe count stock by hand\n\nin two warehouses"
        await _age(p, head, "lease_until", 60)
        await p.sweeper.run_once()
        await p.answer(head, Lane.FRONTIER_FALLBACK)

        await _ended_with(p, head, others, "answered")
        assert p.calls(head) == (0, 1)
        assert content_of(await p.log(head)) == (await p.row(head))["content"] != ""
        assert [p.calls(turn) for turn in others] == [(0, 0), (0, 0)]


async def test_with_the_policy_off_every_message_has_its_own_answer(database_url: str, redis_url: str) -> None:
    """By default nothing is taken together: each turn is prepared, asked and answered by itself."""
    assert load_policy().coalesce is False
    async with _coalescing(database_url, redis_url, coalesce=False) as p:
        turns = await _burst(p)
        assert await _groups(p, turns) == [None, None, None]
        for turn in turns:
            await p.preparation.run(turn)
            await p.answer(turn)
        assert await _states(p, turns) == ["answered"] * 3
        assert [p.calls(turn) for turn in turns] == [(1, 0)] * 3


async def test_each_turn_has_a_result_that_names_its_head(database_url: str, redis_url: str) -> None:
    """The outbox has a result a turn, in order, under ids of their own; the others' are empty and name the head."""
    async with _coalescing(database_url, redis_url) as p:
        head, *others = await _burst(p)
        await p.answer(head)

        found = await p.query("SELECT value, headers FROM outbox WHERE topic = :t ORDER BY outbox_id", t=TOPIC_RESULTS)
        results = [TurnSettled.model_validate_json(bytes(r["value"])) for r in found]  # pyright: ignore[reportArgumentType]
        ids = [dict(r["headers"])["ce_id"] for r in found]  # pyright: ignore[reportCallIssue, reportArgumentType, reportUnknownVariableType]
        assert [r.turn_id for r in results] == [head, *others]
        assert [r.answered_in for r in results] == [None, head, head]
        assert [r.seq for r in results] == [1, 2, 3]
        assert [(r.state, r.reason, r.html, r.text, r.agent, r.source) for r in results[1:]] == [
            ("answered", "coalesced", "", "", None, "none")
        ] * 2
        assert results[0].html != ""
        assert len(set(ids)) == 3


async def test_a_message_that_comes_later_is_answered_next(database_url: str, redis_url: str) -> None:
    """What arrives after the head was prepared joins no group under way: the head's end wakes it, past the group."""
    async with _coalescing(database_url, redis_url) as p:
        turns = await _burst(p)
        late = [await p.record("c1", "and another thing"), await p.record("c1", "one more")]
        claim = await p.runtime.executor.claims.claim(turns[0])
        assert claim is not None
        assert "another" not in claim.text

        settled = await _end(p, turns[0])
        assert settled.next_turn == late[0]
        assert [turn.turn_id for turn in settled.absorbed] == turns[1:]
        await p.preparation.run(late[0])
        assert await _groups(p, [*turns, *late]) == [None, 0, 0, None, 3]
        await p.answer(late[0])
        assert await _states(p, [*turns, *late]) == ["answered"] * 5


async def test_no_absorbed_turn_is_taken_by_itself(database_url: str, redis_url: str) -> None:
    """While its head is open an absorbed turn is no head, is prepared by nobody, and its own deadline passes unseen."""
    async with _coalescing(database_url, redis_url) as p:
        head, *others = await _burst(p)
        for turn in others:
            await _age(p, turn, "created_at", 60)
            await _age(p, turn, "deadline_at", 10_000)
            await p.preparation.run(turn)

        await p.sweeper.run_once()

        assert await p.sweeper.sweeps.wakeable() == []
        assert await _states(p, [head, *others]) == ["queued", "received", "received"]
        await p.answer(head)
        await _ended_with(p, head, others, "answered")


async def test_history_has_a_group_as_one(database_url: str, redis_url: str) -> None:
    """The next turn hears the group as one question with one answer."""
    async with _coalescing(database_url, redis_url) as p:
        head, *_ = await _burst(p)
        await p.answer(head)
        after = await p.queue("c1", "What would you do?")

        claim = await p.runtime.executor.claims.claim(after)
        assert claim is not None
        [past] = claim.past
        assert past.asked == "\n\n".join(MESSAGES)
        assert past.shown_html == (await p.row(head))["content"]


async def test_the_same_message_again_is_the_turn_it_was(database_url: str, redis_url: str) -> None:
    """A message sent again under its key, before and after its group ended, makes no further turn and no answer."""
    async with _coalescing(database_url, redis_url) as p:
        head = await p.record("c1", "Hello there")
        other = await p.record("c1", "we count stock", key="k1")
        await p.preparation.run(head)
        assert await p.record("c1", "we count stock", key="k1") == other
        await p.answer(head)
        assert await p.record("c1", "we count stock", key="k1") == other
        await p.preparation.run(other)
        await _ended_with(p, head, [other], "answered")
        assert len(await p.query("SELECT 1 FROM turns")) == 2


async def test_a_group_survives_its_preparation(database_url: str, redis_url: str) -> None:
    """An orchestrator that dies with a group in its hands is replaced; what came meanwhile joins, nothing leaves."""
    async with _coalescing(database_url, redis_url) as p:
        turns = [await p.record("c1", message) for message in MESSAGES]
        dead = await p.inbox.prepare(turns[0])
        assert dead is not None
        assert dead.text == "\n\n".join(MESSAGES)
        turns.append(await p.record("c1", "and one more"))
        await _age(p, turns[0], "lease_until", 60)

        again = await p.inbox.prepare(turns[0])

        assert again is not None
        assert again.text == "\n\n".join([*MESSAGES, "and one more"])
        assert await _groups(p, turns) == [None, 0, 0, 0]
        await p.inbox.queue(again, await p.preparation.plan(again))
        await p.answer(turns[0])
        await _ended_with(p, turns[0], turns[1:], "answered")


async def test_a_head_past_its_deadline_ends_its_group_with_one_reply(database_url: str, redis_url: str) -> None:
    """The bounded reply is seen once: the others end in the same state, silently, and the next turn may start."""
    async with _coalescing(database_url, redis_url) as p:
        head, *others = await _burst(p)
        late = await p.record("c1", "Are you there?")
        await _age(p, head, "deadline_at", 10_000)

        await p.sweeper.run_once()

        await _ended_with(p, head, others, "bounded")
        assert content_of(await p.log(head)) == p.policy.bounded_reply
        await p.preparation.run(late)
        assert (await p.row(late))["state"] == "queued"


async def test_a_parked_head_parks_its_group(database_url: str, redis_url: str) -> None:
    """Where no rescue is left the whole group is parked, with one dead letter: the head's."""
    async with _coalescing(database_url, redis_url) as p:
        head, *others = await _burst(p)
        dead = await p.runtime.executor.claims.claim(head)
        assert dead is not None
        assert await p.runtime.executor.claims.latch_fallback(dead, "timeout")
        await _age(p, head, "lease_until", 60)

        await p.sweeper.run_once()
        await p.route_dead_letters()

        await _ended_with(p, head, others, "parked")
        assert len(await p.query("SELECT 1 FROM dead_letters")) == 1


async def test_a_lost_stream_ends_its_group_as_it_was_sealed(database_url: str, redis_url: str) -> None:
    """A worker lost in mid-stream leaves a truncated head, and its group ends truncated with it."""
    async with _coalescing(database_url, redis_url) as p:
        head, *others = await _burst(p)
        executor = p.runtime.executor
        claim = await executor.claims.claim(head)
        assert claim is not None
        writer = await executor.arm(claim)
        assert await executor.show(claim, writer, 1, "<p>We count ")
        await executor.publisher.drain(writer)
        await _age(p, head, "lease_until", 60)

        await p.sweeper.run_once()

        await _ended_with(p, head, others, "truncated")


async def test_two_upkeeps_at_once_end_a_group_once(database_url: str, redis_url: str) -> None:
    """Sweeps in parallel leave each turn of a group one ending, one result and one terminal frame."""
    async with _coalescing(database_url, redis_url) as p:
        head, *others = await _burst(p)
        await _age(p, head, "deadline_at", 10_000)

        await asyncio.gather(*(p.sweeper.run_once() for _ in range(4)))

        await _ended_with(p, head, others, "bounded")
        results = await p.query("SELECT turn_id::text AS t FROM outbox WHERE topic = :t ORDER BY 1", t=TOPIC_RESULTS)
        assert [r["t"] for r in results] == sorted([head, *others])


async def test_without_redis_a_group_is_told_by_the_ledger(database_url: str, redis_url: str) -> None:
    """Logs that Redis forgot are told again byte for byte, `answered_in` included."""
    async with _coalescing(database_url, redis_url) as p:
        head, other, _ = await _burst(p)
        await p.answer(head)
        before = await p.log(other)
        await p.redis.flushall()

        assert await p.log(other) == []
        assert await _retold(p, other) == before
        assert [frame.phase for frame in before] == [Phase.DONE]


@pytest.mark.parametrize("channel", [CHANNEL_OPENAI, "slack"])
async def test_only_posts_of_one_channel_are_taken_together(database_url: str, redis_url: str, channel: str) -> None:
    """Another channel's message ends the group, and requests at OpenAI's door are answered one by one."""
    async with _coalescing(database_url, redis_url) as p:
        turns = [await p.record("c1", "one", channel=c) for c in (channel, channel, "test", channel)]
        await p.preparation.run(turns[0])
        assert await _groups(p, turns) == [None, None if channel == CHANNEL_OPENAI else 0, None, None]


async def test_a_replay_is_answered_by_itself(database_url: str, redis_url: str) -> None:
    """A waiting replay ends the group before it, and takes nothing along when its turn comes."""
    async with _coalescing(database_url, redis_url) as p:
        turns = [await p.record("c1", str(n)) for n in range(4)]
        await p.query(
            "UPDATE turns SET replay_of = gen_random_uuid(), replay_mode = 'deliver' WHERE turn_id = CAST(:t AS uuid)",
            t=turns[2],
        )
        await p.preparation.run(turns[0])
        assert await _groups(p, turns) == [None, 0, None, None]
        await p.answer(turns[0])
        await p.preparation.run(turns[2])
        assert (await p.row(turns[2]))["state"] == "queued"
        assert await _groups(p, turns) == [None, 0, None, None]


async def test_a_group_is_bounded(database_url: str, redis_url: str) -> None:
    """At most twenty turns beside the head, and no more characters than one message may have."""
    async with _coalescing(database_url, redis_url) as p:
        turns = await _burst(p, [str(n) for n in range(MOST_ABSORBED + 3)])
        assert await _groups(p, turns) == [None, *[0] * MOST_ABSORBED, None, None]

        half = " ".join(map(str, range(MOST_CHARACTERS)))[: MOST_CHARACTERS // 2 - 1]
        long = [await p.record("c2", half + more) for more in ("", "", "y")]
        await p.preparation.run(long[0])
        assert await _groups(p, long) == [None, 0, None]
        assert (await p.row(long[0]))["state"] == "queued"
        claim = await p.runtime.executor.claims.claim(long[0])
        assert claim is not None
        assert len(claim.text) == MOST_CHARACTERS

        longer = [await p.record("c3", half + more) for more in ("y", "")]
        await p.preparation.run(longer[0])
        assert await _groups(p, longer) == [None, None]


async def test_a_turn_past_its_deadline_is_left_out(database_url: str, redis_url: str) -> None:
    """A waiting turn that a sweep may be ending is not absorbed, nor is anything behind it."""
    async with _coalescing(database_url, redis_url) as p:
        turns = [await p.record("c1", message) for message in MESSAGES]
        await _age(p, turns[1], "deadline_at", 10_000)
        await p.preparation.run(turns[0])
        assert await _groups(p, turns) == [None, None, None]


async def test_a_replay_asks_for_the_whole_group(database_url: str, redis_url: str) -> None:
    """The dead letter of a head is replayed with all that its group asked; the group is no reason to leave it out."""
    async with _coalescing(database_url, redis_url) as p:
        turns = await _burst(p)
        await _age(p, turns[0], "deadline_at", 10_000)
        await p.sweeper.run_once()
        assert await _states(p, turns) == ["bounded"] * 3

        await create(p.engine, OWNER, asked_for("reason=turn_deadline"), operator="key-1")
        by = StandIn(p)
        await work(runner(p), by)

        [replay] = await p.query("SELECT input_text, state FROM turns WHERE replay_of IS NOT NULL")
        assert replay == {"input_text": "\n\n".join(MESSAGES), "state": "answered"}


async def _end(p: Pipeline, turn: TurnId) -> Settled:
    """End the turn, whoever owns it."""
    row = await p.row(turn)
    done = Settlement(
        turn_id=turn,
        tenant=TENANT,
        conversation_id="c1",
        seq=int(str(row["seq"])),
        channel="test",
        agent=None,
        epoch=int(str(row["epoch"])),
        from_states=ANY_UNSEEN,
        state=TurnState.ANSWERED,
        content="<p>Yes.</p>",
        cuts=(11,),
    )
    settled = await settle(p.engine, done, actor="test")
    assert settled is not None
    return settled
