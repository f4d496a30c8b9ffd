"""Answers that nobody is shown, comparisons, and records that never became turns."""

from infra.postgres.inbox import HISTORY_SQL
from infra.postgres.letter_views import Owner
from infra.postgres.replays import create, load_job
from infra.postgres.views import load_transcript
from infra.redis.hub import Hub
from schemas.ids import TurnId
from schemas.names import TOPIC_TURNS, conversation_channel
from tests.support.dead import OWNER, StandIn, asked_for, dead_letter, dead_letters, past_turn, runner, work
from tests.support.pipeline import TENANT, Pipeline, pipeline

_REPLAYS = "SELECT turn_id::text AS id, conversation_id, seq, history FROM turns WHERE replay_of IS NOT NULL"
_BURIED = """
WITH letter AS (
    INSERT INTO dead_letters (reason, stage, kafka_topic, kafka_partition, kafka_offset)
    VALUES ('schema_violation', 'decode', 'fairlead.turns', 1, :offset) RETURNING dead_letter_id
)
INSERT INTO dead_records (dead_letter_id, key, value, headers)
SELECT dead_letter_id, CAST(:key AS bytea), CAST(:value AS bytea), CAST(:headers AS bytea[]) FROM letter
RETURNING dead_letter_id::text AS id
"""


async def test_a_shadow_is_answered_with_what_was_said_before_and_seen_by_nobody(
    database_url: str, redis_url: str
) -> None:
    """The model gets the earlier turns; transcript, watchers, letter and next turn of the visitor know nothing."""
    async with pipeline(database_url, redis_url) as p:
        await past_turn(p, "c1", "Hi, we sell shoes")
        await dead_letter(p, "c1", asked="How do you keep track of stock?")
        before = await load_transcript(p.engine, tenant=TENANT, conversation="c1")
        job = await create(p.engine, OWNER, asked_for(mode="shadow"), operator="key-1")
        replays, hub = runner(p), Hub(redis_url)
        await hub.start()
        try:
            async with hub.watch(conversation_channel(TENANT, "c1")) as ear:
                await replays.run_once()
                [replay] = await p.query(_REPLAYS)
                turn = TurnId(str(replay["id"]))
                await p.preparation.run(turn)
                await p.answer(turn)
                await work(replays, StandIn(p))
                heard = await ear.hear(0.3)
                assert not heard.frames
        finally:
            await hub.aclose()

        assert replay["conversation_id"] == f"replay.{job}.1"
        assert replay["history"] == [
            {"role": "user", "text": "Hi, we sell shoes"},
            {"role": "assistant", "text": "shown before"},
        ]
        assert len(p.tgi.requests(turn)) == 1
        assert (await p.row(turn))["state"] == "answered"
        assert await load_transcript(p.engine, tenant=TENANT, conversation="c1") == before
        assert await p.query("SELECT state, replays, replay_turn FROM dead_letters") == [
            {"state": "unanswered", "replays": 0, "replay_turn": None}
        ]
        following = await p.record("c1", "hello?")
        [told] = await p.query(
            f"SELECT {HISTORY_SQL} AS past FROM turns t WHERE turn_id = CAST(:t AS uuid)", t=following, history=10
        )
        assert [asked for asked, *_ in told["past"]] == [  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType] - JSON
            "Hi, we sell shoes",
            "How do you keep track of stock?",
        ]
        assert (await p.row(following))["seq"] == 3


async def test_answered_letters_may_be_asked_again_in_the_shadow_but_not_discarded_ones(
    database_url: str, redis_url: str
) -> None:
    """A shadow answers what a fallback answered, once a job; what an operator discarded stays discarded."""
    async with pipeline(database_url, redis_url) as p:
        await dead_letters(p, ["c1", "c2"], state="answered_by_fallback")
        await dead_letters(p, ["c3"], state="discarded")
        for _ in range(2):
            await create(p.engine, OWNER, asked_for(mode="compare"), operator="key-1")
        by = StandIn(p)
        await work(runner(p), by)
        assert len(set(by.settled)) == 4
        states = [r["state"] for r in await p.query("SELECT state FROM dead_letters ORDER BY conversation_id")]
        assert states == ["answered_by_fallback", "answered_by_fallback", "discarded"]


async def _bury(p: Pipeline, offset: int, *, value: bytes | None) -> str:
    headers = [b"x-anybody", b"kept", b"without", None]
    found = await p.query(_BURIED, offset=offset, key=b"\xff\x00key", value=value, headers=headers)
    return str(found[0]["id"])


async def test_a_record_that_never_became_a_turn_goes_back_once(database_url: str, redis_url: str) -> None:
    """Key, bytes and headers stand in the outbox unchanged, once, however many jobs ask; a shadow leaves it alone."""
    async with pipeline(database_url, redis_url) as p:
        installation = Owner(TENANT, installation=True)
        await _bury(p, 1, value=b'{"almost": \xff')
        await _bury(p, 2, value=None)
        asked = asked_for("reason=schema_violation", mode="shadow")
        await create(p.engine, installation, asked, operator="key-1")
        await work(runner(p), StandIn(p))
        assert await p.query("SELECT note FROM replay_items") == [{"note": "never_a_turn"}, {"note": "never_a_turn"}]
        assert await p.query("SELECT 1 FROM outbox") == []

        jobs = [
            await create(p.engine, installation, asked_for("reason=schema_violation"), operator="key-1")
            for _ in range(2)
        ]
        await work(runner(p), StandIn(p))
        sent = await p.query("SELECT topic, key, headers, value, original_headers FROM outbox")
        assert sent == [
            {
                "topic": TOPIC_TURNS,
                "key": b"\xff\x00key",
                "headers": [],
                "value": b'{"almost": \xff',
                "original_headers": [b"x-anybody", b"kept", b"without", None],
            }
        ]
        letters = await p.query("SELECT state, replays FROM dead_letters ORDER BY kafka_offset")
        assert letters == [{"state": "replayed", "replays": 1}, {"state": "unanswered", "replays": 0}]
        ended = [await load_job(p.engine, tenant=TENANT, job_id=job) for job in jobs]
        assert [(job.answered, job.skipped) for job in ended if job] == [(1, 1), (0, 2)]


async def test_another_tenants_letters_are_out_of_reach(database_url: str, redis_url: str) -> None:
    """A tenant's job takes neither another's letters nor, without the installation's scope, those of nobody."""
    async with pipeline(database_url, redis_url) as p:
        await dead_letter(p, "c1")
        await _bury(p, 1, value=b"{}")
        await p.query("INSERT INTO tenants (tenant_id, name) VALUES ('other', 'Other')")
        job = await create(p.engine, Owner("other", installation=False), asked_for("times=1"), operator="key-2")
        ended = await load_job(p.engine, tenant="other", job_id=job)
        assert ended is not None
        assert (ended.state, ended.total) == ("finished", 0)
        assert await load_job(p.engine, tenant=TENANT, job_id=job) is None
