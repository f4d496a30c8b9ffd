"""Every way out of a lane leaves one whole dead letter, and the turn is sent on or parked."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from infra.kafka.consumer import EventConsumer
from infra.kafka.producer import EventProducer
from infra.policy import load_policy
from infra.postgres.dead_letters import DeadLetters
from infra.postgres.headers import pairs
from infra.postgres.inbox import Inbound
from infra.postgres.outbox import Outbox
from schemas.agents import Lane
from schemas.envelope import text_headers
from schemas.events import TurnSubmitted
from schemas.frames import Phase
from schemas.ids import TurnId, turn_id_for
from schemas.names import TOPIC_DEAD_LETTERS, TOPIC_RESULTS, TOPIC_TURNS
from schemas.policy import RescueBudget
from tests.support.kafka import everything_in
from tests.support.pipeline import TENANT, Pipeline, content_of, pipeline, until
from workers.agents.artefact import prompt_versions
from workers.dead_letters.route import DeadLetterIntake
from workers.upkeep.relay import Relay
from workers.upkeep.sweep import FORGOTTEN_SECONDS

MakeTopic = Callable[[int], str]

_ODD_HEADERS = (
    ("ce_id", b"e1"),
    ("x-odd", b'\x00\xff{}",\\ not text'),
    ("x-none", None),
    ("x-twice", b"1"),
    ("x-twice", b"2"),
    ("dlq-stage", b"a header of somebody else's with a name of ours"),
)


async def _age(p: Pipeline, turn: TurnId, column: str, seconds: float = 1000) -> None:
    await p.query(
        f"UPDATE turns SET {column} = {column} - make_interval(secs => :s) WHERE turn_id = CAST(:t AS uuid)",
        s=seconds,
        t=turn,
    )


async def _letter(p: Pipeline, turn: TurnId) -> dict[str, object]:
    [found] = await p.query("SELECT * FROM dead_letters WHERE turn_id = CAST(:t AS uuid)", t=turn)
    return found


async def _lose_worker(p: Pipeline, turn: TurnId, lane: Lane = Lane.DISCOVERY) -> None:
    """A worker takes the turn and is never heard of again."""
    claims = p.runtime.executor.claims
    claim = await (claims.rescue(turn) if lane is Lane.FRONTIER_FALLBACK else claims.claim(turn))
    assert claim is not None
    await _age(p, turn, "lease_until")
    await p.sweeper.run_once()


async def test_the_copy_carries_the_record_untouched(database_url: str, redis_url: str) -> None:
    """Key, bytes and every header of the record are in the copy as they came, and ours follow them."""
    async with pipeline(database_url, redis_url) as p:
        event = TurnSubmitted(
            turn_id=turn_id_for(TENANT, "k1"),
            tenant_id=TENANT,
            conversation_id="c1",
            channel="test",
            text="Grüße an das Lager",
            body_sha256="0" * 64,
        )
        raw = b"  " + event.model_dump_json().encode() + b"\n"
        inbound = Inbound(event, 3, 77, None, value=raw, headers=_ODD_HEADERS, timestamp=1_700_000_000_123)
        await p.inbox.record(TOPIC_TURNS, [inbound])
        turn = TurnId(event.turn_id)
        await p.preparation.run(turn)
        await _lose_worker(p, turn)

        [copy] = await p.query("SELECT * FROM outbox WHERE topic = :t", t=TOPIC_DEAD_LETTERS)
        letter = await _letter(p, turn)
        ours = dict(json.loads(json.dumps(copy["headers"])))

        assert (copy["key"], copy["value"]) == (b"acme:c1", raw)
        assert pairs(copy["original_headers"]) == list(_ODD_HEADERS)  # pyright: ignore[reportArgumentType]
        assert ours["dlq-id"] == str(letter["dead_letter_id"])
        assert ours["dlq-turn-id"] == turn
        assert (ours["dlq-original-topic"], ours["dlq-original-partition"]) == (TOPIC_TURNS, "3")
        assert (ours["dlq-original-offset"], ours["dlq-original-timestamp"]) == ("77", "1700000000123")
        assert (ours["dlq-stage"], ours["dlq-error-type"], ours["dlq-attempts"]) == ("running", "worker_lost", "1")
        assert json.loads(ours["dlq-versions"]) == letter["versions"]
        assert letter["versions"] == {
            "policy": p.policy.version,
            "prompt": prompt_versions()[p.policy.default_agent],
            "model": "discovery-slm",
        }


async def test_a_well_answered_turn_keeps_no_second_copy_of_its_record(database_url: str, redis_url: str) -> None:
    """The record is let go with a good ending, and kept beside a dead letter."""
    async with pipeline(database_url, redis_url) as p:
        await p.say("c1", "Hello there")
        assert await p.query("SELECT * FROM turn_records") == []

        second = await p.queue("c1", "We count stock by hand")
        await _lose_worker(p, second)
        await p.answer(second, Lane.FRONTIER_FALLBACK)
        [kept] = await p.query("SELECT turn_id::text AS t FROM turn_records")
        assert kept == {"t": second}
        assert (await _letter(p, second))["state"] == "answered_by_fallback"


async def test_nonsense_from_the_fine_tuned_model_is_evidence_although_it_is_answered(
    database_url: str, redis_url: str
) -> None:
    """A malformed primary answer leaves a dead letter that the fallback has answered."""
    async with pipeline(database_url, redis_url) as p:
        p.tgi.control(fault="malformed", times=1)
        turn = await p.say("c1", "Hello there")

        letter = await _letter(p, turn)
        assert (await p.row(turn))["state"] == "answered"
        assert (letter["reason"], letter["stage"], letter["state"]) == ("malformed", "running", "answered_by_fallback")


async def test_an_outage_that_the_fallback_covers_leaves_no_dead_letter(database_url: str, redis_url: str) -> None:
    """A refused connection is a number, not a letter: an outage must not fill the dead letters."""
    async with pipeline(database_url, redis_url) as p:
        p.tgi.control(fault="status", status=503, times=1)
        turn = await p.say("c1", "Hello there")
        assert (await p.row(turn))["source"] == "fallback"
        assert await p.query("SELECT * FROM dead_letters") == []


async def test_a_turn_that_loses_two_workers_is_poison(database_url: str, redis_url: str) -> None:
    """A turn that took two workers with it is parked at once: one letter, told twice, and no third worker."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        await _lose_worker(p, turn)
        await p.route_dead_letters()
        await _lose_worker(p, turn, Lane.FRONTIER_FALLBACK)
        await p.route_dead_letters()
        await p.answer(turn, Lane.FRONTIER_FALLBACK)

        row, letter = await p.row(turn), await _letter(p, turn)
        assert (row["state"], row["reason"]) == ("parked", "poison")
        assert (letter["reason"], letter["times"], letter["state"]) == ("poison", 2, "unanswered")
        assert p.calls(turn) == (0, 0)
        copies = await p.query("SELECT 1 FROM outbox WHERE topic = :t", t=TOPIC_DEAD_LETTERS)
        assert len(copies) == 2


async def test_the_parked_visitor_is_told_and_the_next_turn_goes_on(database_url: str, redis_url: str) -> None:
    """Parking ends the stream with the bounded reply and one result, and wakes the conversation's next turn."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        following = await p.record("c1", "Are you there?")
        claim = await p.runtime.executor.claims.claim(turn)
        assert claim is not None
        assert await p.runtime.executor.claims.latch_fallback(claim, "timeout")
        await _age(p, turn, "lease_until")
        await p.sweeper.run_once()
        await p.route_dead_letters()

        frames = await p.log(turn)
        assert frames[-1].phase is Phase.FAILED
        assert content_of(frames) == p.policy.bounded_reply
        [result] = await p.query("SELECT value FROM outbox WHERE topic = :t", t=TOPIC_RESULTS)
        assert json.loads(bytes(result["value"]))["state"] == "parked"  # pyright: ignore[reportArgumentType]
        await p.preparation.run(following)
        await p.answer(following)
        assert (await p.row(following))["state"] == "answered"


async def test_a_policy_may_hand_the_visitor_to_a_human(database_url: str, redis_url: str) -> None:
    """Where the policy says so, a turn without an answer ends handed off, with that reply, by worker and by router."""
    policy = load_policy().model_copy(update={"without_answer": "human"})
    async with pipeline(database_url, redis_url, policy=policy) as p:
        for simulator in (p.tgi, p.openai):
            simulator.control(fault="status", status=503)
        failed = await p.say("c1", "Hello there")
        lost = await p.queue("c2", "Hello there")
        await _lose_worker(p, lost)
        await _lose_worker(p, lost, Lane.FRONTIER_FALLBACK)
        await p.route_dead_letters()

        for turn in (failed, lost):
            frames = await p.log(turn)
            assert (await p.row(turn))["state"] == "handed_off"
            assert (frames[-1].phase, content_of(frames)) == (Phase.HANDED_OFF, policy.handoff_reply)
            assert (await _letter(p, turn))["state"] == "unanswered"


@pytest.mark.parametrize(
    ("said", "tgi", "openai", "reason"),
    [
        ("Hello there", {"fault": "status", "status": 503}, {"fault": "status", "status": 500}, "backend_failed_twice"),
        ("My login is not working", {"fault": "none"}, {"fault": "malformed"}, "malformed"),
        ("Hello there", {"fault": "malformed"}, {"fault": "status", "status": 429}, "backend_failed_twice"),
    ],
)
async def test_the_reason_is_of_the_closed_list(
    database_url: str, redis_url: str, said: str, tgi: dict[str, object], openai: dict[str, object], reason: str
) -> None:
    """What both models did wrong is one class, with the last error's code beside it."""
    async with pipeline(database_url, redis_url) as p:
        p.tgi.control(**tgi)  # pyright: ignore[reportArgumentType]
        p.openai.control(**openai)  # pyright: ignore[reportArgumentType]
        turn = await p.say("c1", said)
        letter = await _letter(p, turn)
        assert (letter["reason"], letter["state"]) == (reason, "unanswered")
        assert (await p.row(turn))["reason"] == reason


async def test_beyond_the_budget_of_rescues_a_turn_is_parked_and_no_model_asked(
    database_url: str, redis_url: str
) -> None:
    """Of two turns that lose their worker and one token, one goes to the frontier; the other's visitor is told."""
    policy = load_policy().model_copy(update={"rescues": RescueBudget(per_minute=0.001, burst=1)})
    async with pipeline(database_url, redis_url, policy=policy) as p:
        rescued, beyond = [await p.queue(name, "Hello there") for name in ("c1", "c2")]
        for turn in (rescued, beyond):
            await _lose_worker(p, turn)
        await p.route_dead_letters()
        for turn in (rescued, beyond):
            await p.answer(turn, Lane.FRONTIER_FALLBACK)

        assert (await p.row(rescued))["state"] == "answered"
        assert (await _letter(p, rescued))["state"] == "answered_by_fallback"
        row, letter = await p.row(beyond), await _letter(p, beyond)
        assert (row["state"], row["reason"]) == ("parked", "budget")
        assert (letter["reason"], letter["state"]) == ("budget", "unanswered")
        assert (p.calls(rescued), p.calls(beyond)) == ((0, 1), (0, 0))


async def test_upkeep_parks_what_the_dead_letter_worker_never_saw(database_url: str, redis_url: str) -> None:
    """With the dead-letter topic or its worker away, a turn without a rescue ends all the same, seconds later."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        claim = await p.runtime.executor.claims.claim(turn)
        assert claim is not None
        assert await p.runtime.executor.claims.latch_fallback(claim, "timeout")
        await _age(p, turn, "lease_until")
        await p.sweeper.run_once()
        await p.sweeper.run_once()
        assert (await p.row(turn))["state"] == "rescue"
        await p.query(
            "UPDATE dead_letters SET updated_at = updated_at - make_interval(secs => :s)", s=FORGOTTEN_SECONDS + 1
        )
        await p.sweeper.run_once()
        assert (await p.row(turn))["state"] == "parked"


async def test_after_an_outage_of_the_ledger_nobody_is_robbed_for_a_lease(database_url: str, redis_url: str) -> None:
    """Owners that could not renew and lanes that could not claim get the time of a lease before they count as lost."""
    async with pipeline(database_url, redis_url) as p:
        owned = await p.queue("c1", "Hello there")
        assert await p.runtime.executor.claims.claim(owned) is not None
        waiting = await p.queue("c2", "Hello there")
        await _age(p, owned, "lease_until")
        await _age(p, waiting, "head_at")
        p.sweeper.ledger_was_away()

        await p.sweeper.run_once()
        assert ((await p.row(owned))["state"], (await p.row(waiting))["state"]) == ("running", "queued")

        other = replace(p.sweeper)
        other.lease = 0.0
        other.ledger_was_away()
        await other.run_once()
        assert ((await p.row(owned))["state"], (await p.row(waiting))["state"]) == ("rescue", "rescue")


@asynccontextmanager
async def _relayed(p: Pipeline, kafka: str, group: str) -> AsyncGenerator[DeadLetterIntake]:
    """The outbox is on Kafka, and a dead-letter worker of this group reads."""
    producer = EventProducer(bootstrap=kafka, client_id="test")
    await producer.start()
    await until(lambda: producer.ready, seconds=20)
    relay = Relay(outbox=Outbox(p.engine), producer=producer)
    while await relay.run_once():
        pass
    consumer = EventConsumer(
        bootstrap=kafka, topic=TOPIC_DEAD_LETTERS, group=group, client_id="test", fetch_max_wait_ms=10
    )
    await consumer.start()
    try:
        yield DeadLetterIntake(consumer=consumer, dead_letters=DeadLetters(p.engine), routing=p.routing)
    finally:
        await consumer.stop()
        await producer.stop()


async def test_from_the_topic_to_the_frontier_or_to_an_operator(kafka: str, database_url: str, redis_url: str) -> None:
    """The dead-letter worker routes one turn to the frontier, parks the other, and skips what is no letter of ours."""
    async with pipeline(database_url, redis_url) as p:
        rescued, parked = [await p.queue(name, "Hello there") for name in ("c1", "c2")]
        await _lose_worker(p, rescued)
        await _lose_worker(p, parked)
        await _lose_worker(p, parked, Lane.FRONTIER_FALLBACK)
        producer = EventProducer(bootstrap=kafka, client_id="test")
        await producer.start()
        await until(lambda: producer.ready, seconds=20)
        for headers in ([], [("dlq-id", b"no id"), ("dlq-turn-id", b"'; DROP TABLE turns; --")]):
            await producer.send(TOPIC_DEAD_LETTERS, key=b"\xff", value=b"\x00", headers=headers)
        await producer.stop()

        async with _relayed(p, kafka, uuid.uuid4().hex) as intake, asyncio.timeout(60):
            while (await _letter(p, rescued))["copy_offset"] is None or (await p.row(parked))["state"] != "parked":
                await intake.run_once(wait_ms=100)

        assert await p.hints(Lane.FRONTIER_FALLBACK) == 1
        letter = await _letter(p, rescued)
        copies = [
            record
            for record in await everything_in(kafka, TOPIC_DEAD_LETTERS, 5)
            if text_headers(record.headers).get("dlq-id") == str(letter["dead_letter_id"])
        ]
        assert [(c.partition, c.offset) for c in copies] == [(letter["copy_partition"], letter["copy_offset"])]
        await p.answer(rescued, Lane.FRONTIER_FALLBACK)
        assert (await p.row(rescued))["source"] == "fallback"
