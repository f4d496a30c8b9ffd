"""A person takes a conversation over: no agent begins to be seen, and what the person writes comes in its turn."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import text

from infra.policy import load_policy
from infra.postgres.claims import Claim
from infra.postgres.keepers import Keepers, Message, NotTaken, OtherWords, Said
from infra.postgres.replays import create, load_job
from schemas.agents import Lane
from schemas.completions import Incomplete
from schemas.dead_letters import DeadLetterReason
from schemas.frames import Phase, TurnStreamInfo
from schemas.ids import TurnId, turn_id_for
from schemas.outcomes import Answer, Answered, Bounded
from tests.support.dead import OWNER, StandIn, asked_for, dead_letter, runner, work
from tests.support.pipeline import TENANT, Pipeline, content_of, pipeline, until
from workers.agents.prompt import build_prompt
from workers.answers.writer import FrameWriter

REPLY: Final = load_policy().handoff_reply
ANSWER: Final = Answer(html="<p>Hi", cuts=(5,), dimension=None, source="primary", ordinal=1, model="m")


def keepers(p: Pipeline) -> Keepers:
    """Return what an operator may do."""
    return Keepers(p.engine, tenant=TENANT, operator="key-1")


async def take(p: Pipeline, conversation: str, *, name: str = "Ann") -> None:
    """Take a conversation over, as the gateway does."""
    await keepers(p).take(conversation, name=name, reason="asked for a person")
    await look(p, conversation)


async def look(p: Pipeline, conversation: str) -> None:
    """Do what an orchestrator does when the head of a conversation is announced, until nothing more is to do."""
    while (kept := await keepers(p).load(conversation)) is not None and kept.head is not None:
        await p.preparation.run(kept.head)
        after = await keepers(p).load(conversation)
        if after is None or after.head == kept.head:
            return


async def say(p: Pipeline, conversation: str, html: str, key: str = "k1") -> TurnId:
    """Write to the visitor as the person who has the conversation."""
    turn = turn_id_for(TENANT, key)
    message = Message(turn_id=turn, html=html, digest=html, name=None, traceparent=None)
    assert await keepers(p).say(conversation, message) == Said()
    return turn


async def claimed(p: Pipeline, conversation: str) -> tuple[Claim, FrameWriter]:
    """Bring a turn into a worker's hands."""
    turn = await p.queue(conversation, "Hello there")
    claim = await p.runtime.executor.claims.claim(turn)
    assert claim is not None
    return claim, await p.runtime.executor.arm(claim)


async def told(p: Pipeline, turn: TurnId) -> tuple[object, object, str, object]:
    """Return how a turn ended and what its watcher saw."""
    row = await p.row(turn)
    return row["state"], row["reason"], content_of(await p.log(turn)), row["source"]


@asynccontextmanager
async def held(p: Pipeline, conversation: str) -> AsyncGenerator[None]:
    """Keep everybody else from the conversation's row."""
    async with p.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="READ COMMITTED")
        async with connection.begin():
            await connection.execute(
                text("SELECT 1 FROM conversations WHERE conversation_id = :c FOR UPDATE"), {"c": conversation}
            )
            yield


async def waiting(p: Pipeline, n: int) -> None:
    """Wait until so many statements wait for a lock."""

    async def blocked() -> bool:
        found = await p.query("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return len(found) == n

    await until(blocked)


UNSEEN: Final = ("received", "preparing", "queued", "running", "fallback", "rescue")


async def test_an_unseen_turn_is_the_persons_in_every_state(database_url: str, redis_url: str) -> None:
    """Wherever a turn stands while nothing of it is visible, a takeover hands it off, and its worker is fenced."""
    async with pipeline(database_url, redis_url) as p:
        for state in UNSEEN:
            await taken_from(p, state)
        results = await p.query(
            "SELECT convert_from(value, 'UTF8')::jsonb ->> 'state' AS state,"
            " convert_from(value, 'UTF8')::jsonb ->> 'reason' AS reason FROM outbox WHERE topic = 'fairlead.results'"
        )
        assert results == [{"state": "handed_off", "reason": "taken_over"}] * len(UNSEEN)


async def taken_from(p: Pipeline, state: str) -> None:
    """Take a conversation over whose turn is in this state, and let everybody go on who had it."""
    claim, writer = await claimed(p, state)
    turn = claim.turn_id
    claims = p.runtime.executor.claims
    if state == "fallback":
        assert await claims.latch_fallback(claim, "timeout")
    elif state != "running":
        await p.query(
            "UPDATE turns SET state = :s, owner = NULL, lease_until = clock_timestamp() - interval '1 s'"
            " WHERE turn_id = CAST(:t AS uuid)",
            s=state,
            t=turn,
        )
    await take(p, state)
    for verb in (
        claims.latch_visible(claim, 1),
        claims.latch_fallback(claim, "timeout"),
        claims.claim(turn),
        claims.rescue(turn),
    ):
        assert not await verb
    assert not await p.runtime.executor.show(claim, writer, 1, "<p>late")
    await p.runtime.executor.settler.settle(claim, 0, writer, Answered(ANSWER))
    assert await told(p, turn) == ("handed_off", "taken_over", REPLY, "none")
    assert [frame.phase for frame in await p.log(turn)][-1] is Phase.HANDED_OFF


async def test_whichever_comes_first_the_other_sees_it(database_url: str, redis_url: str) -> None:
    """Commit point and takeover wait for each other: text that is visible was so before the takeover returned."""
    async with pipeline(database_url, redis_url) as p:
        for first in ("takeover", "commit point"):
            claim, _ = await claimed(p, first.replace(" ", "-"))
            name = claim.conversation_id

            def begin(what: str, claim: Claim = claim, name: str = name) -> asyncio.Task[bool | None]:
                if what == "takeover":
                    return asyncio.create_task(keepers(p).take(name, name="Ann", reason=""))
                return asyncio.create_task(p.runtime.executor.claims.latch_visible(claim, 1))

            second = "commit point" if first == "takeover" else "takeover"
            tasks: dict[str, asyncio.Task[bool | None]] = {}
            async with held(p, name):
                for n, what in enumerate((first, second), 1):
                    tasks[what] = begin(what)
                    await waiting(p, n)
            await asyncio.gather(*tasks.values())
            assert tasks["commit point"].result() == (first == "commit point")
            [found] = await p.query(
                "SELECT visible_at <= keeper_since AS before FROM turns JOIN conversations USING (conversation_id)"
                " WHERE conversation_id = :c",
                c=name,
            )
            assert found["before"] is (True if first == "commit point" else None)


async def carry(p: Pipeline, turn: TurnId, way: int) -> None:
    """Carry a turn as a worker in one of four ways: visibly, silently, by its fallback, in vain."""
    executor = p.runtime.executor
    claim = await executor.claims.claim(turn)
    if claim is None:
        return
    info = TurnStreamInfo(claim.turn_id, claim.conversation_id, claim.created)
    writer = FrameWriter(stream=(await executor.arm(claim)).stream, info=info, silent=way == 1)
    ordinal = 2 if way == 2 and await executor.claims.latch_fallback(claim, "timeout") else 1
    if way == 3:
        failed = Bounded(reason=DeadLetterReason.BACKEND_FAILED_TWICE, ordinal=1, error=Incomplete("cut"))
        await executor.settler.settle(claim, 0, writer, failed)
    elif await executor.show(claim, writer, ordinal, "<p>Hi"):
        await executor.settler.settle(claim, 0, writer, Answered(ANSWER))


async def test_no_interleaving_lets_an_agent_begin_after_a_takeover(database_url: str, redis_url: str) -> None:
    """Takeovers race with claims, commit points, silent ends, fallbacks and rescues; none becomes visible after one."""
    async with pipeline(database_url, redis_url) as p:
        luck = random.Random(5)

        async def one(n: int) -> None:
            turn = await p.record(f"c{n}", "Hello there")
            racing: list[Callable[[], Awaitable[object]]] = [lambda: take(p, f"c{n}"), lambda: carry(p, turn, n % 4)]
            if n % 5:
                await p.preparation.run(turn)
            else:
                racing.append(lambda: p.preparation.run(turn))
            if n % 7 == 0:
                racing.append(p.sweeper.run_once)

            async def soon(what: Callable[[], Awaitable[object]]) -> None:
                await asyncio.sleep(luck.random() * 0.012)
                await what()

            await asyncio.gather(*map(soon, racing))
            await look(p, f"c{n}")

        for batch in range(6):
            await asyncio.gather(*(one(n) for n in range(batch * 8, batch * 8 + 8)))
        late = await p.query(
            """
            SELECT t.state, t.reason FROM turns t JOIN conversations c USING (conversation_id)
            WHERE coalesce(t.visible_at, CASE WHEN t.content || coalesce(t.closing, '') NOT IN ('', :reply)
                           THEN t.done_at END) > c.keeper_since""",
            reply=REPLY,
        )
        assert late == []
        states = {str(r["state"]) for r in await p.query("SELECT DISTINCT state FROM turns")}
        assert "handed_off" in states
        assert states <= {"handed_off", "answered", "bounded", "truncated"}


async def test_a_model_that_is_being_asked_is_let_go(database_url: str, redis_url: str) -> None:
    """The worker of a turn that was taken over gives its model call up at its next renewal, and writes nothing."""
    async with pipeline(database_url, redis_url) as p:
        p.tgi.control(fault="hang")
        turn = await p.queue("c1", "Hello there")
        working = asyncio.create_task(p.answer(turn))
        await until(lambda: len(p.tgi.requests(turn)) == 1)
        await keepers(p).take("c1", name="Ann", reason="")
        await p.runtime.executor.live.renew()
        await asyncio.wait((working,), timeout=5)
        assert working.cancelled()
        await look(p, "c1")
        assert await told(p, turn) == ("handed_off", "taken_over", REPLY, "none")
        assert p.calls(turn) == (1, 0)


async def test_text_that_is_visible_stays_and_comes_to_its_end(database_url: str, redis_url: str) -> None:
    """A turn past its commit point is not touched by a takeover; what the person writes comes after it."""
    async with pipeline(database_url, redis_url) as p:
        claim, writer = await claimed(p, "c1")
        executor = p.runtime.executor
        assert await executor.show(claim, writer, 1, "<p>Hi")
        await take(p, "c1")
        said = await say(p, "c1", "<p>Ann here</p>")
        await look(p, "c1")
        assert (await p.row(said))["state"] == "received"
        await executor.publisher.drain(writer)
        await executor.settler.settle(claim, 0, writer, Answered(ANSWER))
        await look(p, "c1")
        assert await told(p, claim.turn_id) == ("answered", None, "<p>Hi", "primary")
        assert await told(p, said) == ("answered", None, "<p>Ann here</p>", "human")


async def test_visitors_are_told_once_and_agents_read_it_all(database_url: str, redis_url: str) -> None:
    """The first turn without an answer says that a person comes, others are silent; given back, an agent knows it."""
    async with pipeline(database_url, redis_url) as p:
        await p.say("c1", "we lose track of stock")
        await take(p, "c1")
        turns: list[TurnId] = []
        for words in ("hello?", "anybody?"):
            turns.append(await p.record("c1", words))
            await look(p, "c1")
        assert [(await told(p, turn))[2] for turn in turns] == [REPLY, ""]
        said = await say(p, "c1", "<p>Ann here: it is in aisle 3</p>")
        await look(p, "c1")
        assert [frame.phase for frame in await p.log(said)] == [Phase.STREAMING, Phase.DONE]

        await keepers(p).give_back("c1")
        claim, _ = await claimed(p, "c1")
        messages = build_prompt(claim, input_tokens=3_600, history_turns=10).messages
        assert [(m.role, m.content) for m in messages if "Ann" in m.content or m.content in ("hello?", "anybody?")] == [
            ("user", "hello?"),
            ("user", "anybody?"),
            ("assistant", "Ann here: it is in aisle 3"),
        ]
        assert all(m.content for m in messages)
        audit = await p.query("SELECT verb, subject FROM operator_audit ORDER BY audit_id")
        assert [(a["verb"], a["subject"]) for a in audit] == [
            ("conversation_taken", "c1"),
            ("conversation_said", "c1"),
            ("conversation_given_back", "c1"),
        ]


async def test_what_is_repeated_changes_nothing(database_url: str, redis_url: str) -> None:
    """Taking twice, writing twice under one key, also at once, and giving back twice are each one act of the audit."""
    async with pipeline(database_url, redis_url) as p:
        await p.record("c1", "Hello there")
        message = Message(turn_id=turn_id_for(TENANT, "k"), html="<p>x</p>", digest="d", name=None, traceparent=None)
        assert await keepers(p).say("c1", message) == NotTaken()
        assert await keepers(p).say("nowhere", message) is None
        assert await keepers(p).load("nowhere") is None
        await asyncio.gather(*(take(p, "c1") for _ in range(4)))
        before = await keepers(p).load("c1")
        await take(p, "c1", name="Bob")
        after = await keepers(p).load("c1")
        assert before is not None
        assert after is not None
        assert (before.name, after.name, before.since) == ("Ann", "Bob", after.since)
        said = await asyncio.gather(*(keepers(p).say("c1", message) for _ in range(6)))
        assert said == [Said()] * 6
        other = Message(turn_id=message.turn_id, html="<p>y</p>", digest="e", name=None, traceparent=None)
        assert await keepers(p).say("c1", other) == OtherWords()
        for _ in range(2):
            await keepers(p).give_back("c1")
        verbs = [str(r["verb"]) for r in await p.query("SELECT verb FROM operator_audit ORDER BY audit_id")]
        assert verbs == ["conversation_taken"] * 2 + ["conversation_said", "conversation_given_back"]
        [places] = await p.query(
            "SELECT last_seq, (SELECT max(seq) FROM turns) AS seq FROM conversations WHERE conversation_id = 'c1'"
        )
        assert places["last_seq"] == places["seq"] == 2
        assert (await keepers(p).say("c1", message)) == Said()


async def test_upkeep_alone_brings_everything_to_its_end(database_url: str, redis_url: str) -> None:
    """A lost worker's turn is no dead letter of a person's conversation, and past its deadline it is handed off."""
    async with pipeline(database_url, redis_url) as p:
        claim, _ = await claimed(p, "c1")
        behind = await p.queue("c2", "Hello there")
        for name in ("c1", "c2"):
            await keepers(p).take(name, name="Ann", reason="")
        said = await say(p, "c1", "<p>Ann here</p>")
        await p.query("UPDATE turns SET lease_until = lease_until - interval '1 h', head_at = head_at - interval '1 h'")
        await p.sweeper.run_once()
        assert await p.query("SELECT 1 FROM dead_letters") == []
        assert set(await p.sweeper.sweeps.wakeable()) == {claim.turn_id, behind}
        await p.query("UPDATE turns SET deadline_at = deadline_at - interval '1 d'")
        await p.sweeper.run_once()
        for turn in (claim.turn_id, behind):
            assert await told(p, turn) == ("handed_off", "taken_over", REPLY, "none")
        assert await told(p, said) == ("answered", None, "<p>Ann here</p>", "human")


async def test_dead_letters_and_replays_leave_it_to_the_person(database_url: str, redis_url: str) -> None:
    """A rescue in a person's conversation ends with them; an answer is not delivered into it, and says why."""
    async with pipeline(database_url, redis_url) as p:
        letter = await dead_letter(p, "c1")
        job = await create(p.engine, OWNER, asked_for(), operator="key-1")
        await keepers(p).take("c1", name="Ann", reason="")
        await work(runner(p), StandIn(p))
        ended = await load_job(p.engine, tenant=TENANT, job_id=job)
        assert ended is not None
        assert (ended.answered, ended.skipped) == (0, 1)
        assert await p.query("SELECT note FROM replay_items") == [{"note": "taken_over"}]
        assert await p.query("SELECT dead_letter_id::text AS id, state FROM dead_letters") == [
            {"id": letter, "state": "unanswered"}
        ]

        turn = await p.queue("c2", "Hello there")
        await p.query("UPDATE turns SET head_at = head_at - interval '1 h' WHERE turn_id = CAST(:t AS uuid)", t=turn)
        await p.sweeper.run_once()
        assert (await p.row(turn))["state"] == "rescue"
        await keepers(p).take("c2", name="Ann", reason="")
        await p.route_dead_letters()
        await p.answer(turn, Lane.FRONTIER_FALLBACK)
        assert p.calls(turn) == (0, 0)
        await look(p, "c2")
        assert (await told(p, turn))[:2] == ("handed_off", "taken_over")


async def test_an_outage_does_not_silence_agents(database_url: str, redis_url: str) -> None:
    """Where no model answers and the policy hands over, the result says so; the next message is an agent's again."""
    policy = load_policy().model_copy(update={"without_answer": "human"})
    async with pipeline(database_url, redis_url, policy=policy) as p:
        p.tgi.control(fault="status", status=503, times=1)
        p.openai.control(fault="status", status=500, times=1)
        handed = await p.say("c1", "Hello there")
        assert (await told(p, handed))[:2] == ("handed_off", "backend_failed_twice")
        again = await p.say("c1", "are you there?")
        assert (await p.row(again))["state"] == "answered"
