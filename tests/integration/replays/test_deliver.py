"""Delivering: what is answered, what is left alone, and that no order of events makes two answers of one letter."""

import asyncio
from collections import Counter

from infra.postgres.replay_runs import ReplayRuns
from infra.postgres.replays import change, create, load_job, plan
from schemas.ids import TurnId
from schemas.turns import TurnState
from tests.support.dead import OWNER, StandIn, asked_for, dead_letter, dead_letters, past_turn, past_turns, runner, work
from tests.support.pipeline import TENANT, Pipeline, pipeline

_REPLAYS = "SELECT turn_id::text AS id, conversation_id, seq, state FROM turns WHERE replay_of IS NOT NULL"


async def _thousand(p: Pipeline) -> None:
    """1,000 dead letters: 600 answered, 150 in conversations that moved on, 250 to answer."""
    moved = [f"moved-{n}" for n in range(150)]
    await dead_letters(p, [f"answered-{n}" for n in range(600)], state="answered_by_fallback")
    await dead_letters(p, [f"dead-{n}" for n in range(125)])
    await dead_letters(p, moved)
    await dead_letters(p, [f"dead-{n}" for n in range(125, 250)])
    await past_turns(p, moved, "never mind, what about prices?")


async def _states(p: Pipeline) -> Counter[str]:
    return Counter(str(r["state"]) for r in await p.query("SELECT state FROM dead_letters"))


async def test_exactly_those_are_answered_that_nobody_has_answered(database_url: str, redis_url: str) -> None:
    """Of 1,000 letters, 600 answered and 150 left behind, 250 are answered once; asking again answers none."""
    async with pipeline(database_url, redis_url) as p:
        await _thousand(p)
        asked = asked_for("agent=discovery")
        planned = await plan(p.engine, OWNER, asked)
        assert planned.counts == {"answer": 250, "already_answered": 600, "moved_on": 150}
        assert len(planned.sample) == 5

        job = await create(p.engine, OWNER, asked, operator="key-1")
        by = StandIn(p)
        await work(runner(p), by)

        assert len(by.settled) == len(set(by.settled)) == 250
        assert await _states(p) == {"answered_by_fallback": 600, "obsolete": 150, "replayed": 250}
        ended = await load_job(p.engine, tenant=TENANT, job_id=job)
        assert ended is not None
        assert (ended.state, ended.answered, ended.skipped, ended.failed) == ("finished", 250, 150, 0)
        replays = await p.query(_REPLAYS)
        assert {str(r["conversation_id"]) for r in replays} == {f"dead-{n}" for n in range(250)}
        assert all((r["seq"], r["state"]) == (2, "answered") for r in replays)

        await create(p.engine, OWNER, asked, operator="key-1")
        await work(runner(p), by)
        assert len(by.settled) == 250
        assert len(await p.query(_REPLAYS)) == 250


async def test_a_runner_killed_half_way_changes_nothing_of_the_end(database_url: str, redis_url: str) -> None:
    """A runner that is lost with half its work begun is replaced after its lease, and the end is the same."""
    async with pipeline(database_url, redis_url) as p:
        await _thousand(p)
        job = await create(p.engine, OWNER, asked_for(), operator="key-1")
        by = StandIn(p)
        lost = runner(p, "lost", batch=60)
        while (begun := len(await p.query(_REPLAYS))) < 100:
            await lost.run_once()
        assert begun < 250

        other = runner(p, "other", batch=60)
        assert await ReplayRuns(p.engine, owner="other", lease=15, waiting=600, history=20).lease(8) == []
        await p.query("UPDATE replay_jobs SET lease_until = clock_timestamp() - interval '1 second'")
        await work(other, by)
        assert await lost.run_once() == 0

        assert len(by.settled) == len(set(by.settled)) == 250
        assert await _states(p) == {"answered_by_fallback": 600, "obsolete": 150, "replayed": 250}
        ended = await load_job(p.engine, tenant=TENANT, job_id=job)
        assert ended is not None
        assert (ended.state, ended.answered, ended.skipped) == ("finished", 250, 150)


async def test_pressing_twice_makes_one_answer(database_url: str, redis_url: str) -> None:
    """Several operators with jobs over the same letters, worked on at once, give each letter one turn."""
    async with pipeline(database_url, redis_url) as p:
        await dead_letters(p, [f"c{n}" for n in range(40)])
        for n in range(4):
            await create(p.engine, OWNER, asked_for(), operator=f"key-{n}")
        runs = [ReplayRuns(p.engine, owner=f"r{n}", lease=15, waiting=600, history=20) for n in range(4)]
        held = [(await one.lease(1))[0] for one in runs]
        started = await asyncio.gather(
            *(one.deliver(job, 7) for _ in range(6) for one, job in zip(runs, held, strict=True))
        )
        turns = [turn for one in started for turn in one.turns]
        while (
            again := await asyncio.gather(*(one.deliver(job, 50) for one, job in zip(runs, held, strict=True)))
        ) and any(one.items for one in again):
            turns += [turn for one in again for turn in one.turns]
        assert len(turns) == len(set(turns)) == 40
        assert len(await p.query(_REPLAYS)) == 40
        notes = await p.query("SELECT DISTINCT note FROM replay_items WHERE state = 'skipped'")
        assert [r["note"] for r in notes] == ["being_replayed"]


async def test_letters_of_a_conversation_are_answered_in_order(database_url: str, redis_url: str) -> None:
    """The next letter of a conversation begins when the one before has ended; other conversations do not wait."""
    async with pipeline(database_url, redis_url) as p:
        for n in range(3):
            await dead_letter(p, "long", asked=f"question {n}")
        await dead_letter(p, "other")
        await create(p.engine, OWNER, asked_for(), operator="key-1")
        by, replays = StandIn(p), runner(p, batch=100)
        seen: list[str] = []
        for _ in range(20):
            await replays.run_once()
            open_turns = await p.query(
                "SELECT input_text FROM turns WHERE done_at IS NULL AND conversation_id = 'long'"
            )
            assert len(open_turns) <= 1
            seen += [str(r["input_text"]) for r in open_turns]
            await by.answer_all()
        assert seen == ["question 0", "question 1", "question 2"]
        assert await _states(p) == {"replayed": 4}


async def test_a_visitor_who_writes_meanwhile_is_not_answered_late(database_url: str, redis_url: str) -> None:
    """A message that reaches the ledger before the start leaves the letter behind; `late` answers it all the same."""
    async with pipeline(database_url, redis_url) as p:
        await dead_letter(p, "c1")
        job = await create(p.engine, OWNER, asked_for(), operator="key-1")
        await p.record("c1", "hello? are you there?")
        by = StandIn(p)
        await work(runner(p), by)
        ended = await load_job(p.engine, tenant=TENANT, job_id=job)
        assert ended is not None
        assert (ended.answered, ended.skipped) == (0, 1)
        assert await p.query("SELECT note FROM replay_items") == [{"note": "moved_on"}]
        assert await _states(p) == {"obsolete": 1}

        await create(p.engine, OWNER, asked_for(late=True), operator="key-1")
        await work(runner(p), by)
        assert await _states(p) == {"replayed": 1}


async def test_a_message_and_a_start_at_once_are_decided_one_way(database_url: str, redis_url: str) -> None:
    """Whoever gets the conversation first: no replay stands behind a newer message of the visitor."""
    async with pipeline(database_url, redis_url) as p:
        await dead_letters(p, [f"c{n}" for n in range(60)])
        await create(p.engine, OWNER, asked_for(), operator="key-1")
        replays = runner(p, batch=10)
        await asyncio.gather(
            *(p.record(f"c{n}", "are you there?") for n in range(60)),
            *(replays.run_once() for _ in range(5)),
        )
        await work(replays, StandIn(p))
        wrong = await p.query("""
            SELECT r.turn_id FROM turns r JOIN turns v USING (tenant_id, conversation_id)
            WHERE r.replay_of IS NOT NULL AND v.input_text = 'are you there?' AND v.replay_of IS NULL AND v.seq < r.seq
        """)
        assert wrong == []
        states = await _states(p)
        assert states["replayed"] + states["obsolete"] == 60


async def test_a_letter_replayed_three_times_in_vain_is_left_alone(database_url: str, redis_url: str) -> None:
    """Each failed delivery counts, the fourth is refused, and the letters of the replays are never chosen."""
    async with pipeline(database_url, redis_url) as p:
        letter = await dead_letter(p, "c1")
        by = StandIn(p, ending=lambda _: TurnState.BOUNDED)
        for _ in range(4):
            await create(p.engine, OWNER, asked_for("state=unanswered"), operator="key-1")
            await work(runner(p), by)
        assert len(set(by.settled)) == 3
        [kept] = await p.query(
            "SELECT state, replays FROM dead_letters WHERE dead_letter_id = CAST(:l AS uuid)", l=letter
        )
        assert kept == {"state": "unanswered", "replays": 3}
        assert (await plan(p.engine, OWNER, asked_for("state=unanswered"))).counts == {"replayed_too_often": 1}
        await p.query(
            "INSERT INTO dead_letters (turn_id, tenant_id, conversation_id, reason, stage) SELECT turn_id, tenant_id,"
            " conversation_id, 'turn_deadline', 'queued' FROM turns WHERE replay_of IS NOT NULL"
        )
        assert (await plan(p.engine, OWNER, asked_for("reason=turn_deadline"))).counts == {}


async def test_a_job_stops_when_too_much_fails(database_url: str, redis_url: str) -> None:
    """With 20 ended and more than the given share failed, the job stops by itself and says why."""
    async with pipeline(database_url, redis_url) as p:
        await dead_letters(p, [f"c{n}" for n in range(60)])
        job = await create(p.engine, OWNER, asked_for(stop_percent=30), operator="key-1")
        failing = iter(range(1_000))
        by = StandIn(p, ending=lambda _: TurnState.BOUNDED if next(failing) % 2 else TurnState.ANSWERED)
        await work(runner(p, batch=20, in_flight=20), by)
        ended = await load_job(p.engine, tenant=TENANT, job_id=job)
        assert ended is not None
        assert (ended.state, ended.reason) == (
            "stopped",
            f"{ended.failed} of {ended.answered + ended.failed} replays failed",
        )
        assert ended.answered + ended.failed + ended.skipped == 60
        assert ended.answered + ended.failed < 40
        assert (await _states(p))["unanswered"] == 60 - ended.answered


async def test_pause_resume_and_abort_take_effect_at_once(database_url: str, redis_url: str) -> None:
    """After a pause nothing starts, after a resume the rest does; an abort leaves the rest and books what runs."""
    async with pipeline(database_url, redis_url) as p:
        await dead_letters(p, [f"c{n}" for n in range(30)])
        job = await create(p.engine, OWNER, asked_for(rate=20), operator="key-1")
        by, replays = StandIn(p), runner(p, batch=5)
        while len(await p.query(_REPLAYS)) < 10:
            await replays.run_once()
            await asyncio.sleep(0.01)
        assert await change(p.engine, tenant=TENANT, job_id=job, state="paused", operator="key-1")
        begun = len(await p.query(_REPLAYS))
        await asyncio.sleep(0.3)
        await replays.run_once()
        assert len(await p.query(_REPLAYS)) == begun
        await by.answer_all()
        await replays.run_once()
        assert (await _states(p))["replayed"] == begun

        assert not await change(p.engine, tenant=TENANT, job_id=job, state="paused", operator="key-1")
        assert await change(p.engine, tenant=TENANT, job_id=job, state="running", operator="key-1")
        while len(await p.query(_REPLAYS)) == begun:
            await replays.run_once()
            await asyncio.sleep(0.01)
        assert await change(p.engine, tenant=TENANT, job_id=job, state="aborted", operator="key-1")
        assert not await change(p.engine, tenant=TENANT, job_id=job, state="running", operator="key-1")
        begun = len(await p.query(_REPLAYS))
        await work(replays, by)
        ended = await load_job(p.engine, tenant=TENANT, job_id=job)
        assert ended is not None
        assert (ended.state, ended.answered, ended.skipped) == ("aborted", begun, 30 - begun)
        verbs = [r["verb"] for r in await p.query("SELECT verb FROM operator_audit ORDER BY audit_id")]
        assert verbs == ["replay_created", "replay_paused", "replay_resumed", "replay_aborted"]


async def test_a_rate_is_kept(database_url: str, redis_url: str) -> None:
    """A job starts no more than its rate allows, whoever works on it."""
    async with pipeline(database_url, redis_url) as p:
        await dead_letters(p, [f"c{n}" for n in range(50)])
        await create(p.engine, OWNER, asked_for(rate=10), operator="key-1")
        replays, clock = runner(p), asyncio.get_running_loop().time
        began = clock()
        while clock() - began < 1.0:
            await replays.run_once()
            await asyncio.sleep(0.02)
        assert 2 <= len(await p.query(_REPLAYS)) <= 1 + 10 * (clock() - began)


async def test_a_delivered_answer_comes_from_the_real_pipeline(database_url: str, redis_url: str) -> None:
    """Through orchestrator, lane and model the replay is the conversation's next turn, at two calls at most."""
    async with pipeline(database_url, redis_url) as p:
        await past_turn(p, "c1", "Hi, we sell shoes")
        await dead_letter(p, "c1", asked="How do you keep track of stock?")
        await create(p.engine, OWNER, asked_for(), operator="key-1")
        replays = runner(p)
        await replays.run_once()
        [replay] = await p.query(_REPLAYS)
        turn = TurnId(str(replay["id"]))
        await p.preparation.run(turn)
        await p.answer(turn)
        await replays.run_once()
        row = await p.row(turn)
        assert (row["state"], row["seq"], row["conversation_id"]) == ("answered", 3, "c1")
        assert p.calls(turn) == (1, 0)
        assert await _states(p) == {"replayed": 1}
