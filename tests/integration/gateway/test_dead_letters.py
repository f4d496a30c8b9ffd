"""The operators' routes: who sees what, what is written down, and what a job tells."""

import base64
import json
import uuid
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from infra.postgres.letter_views import Owner, list_letters
from infra.postgres.replay_runs import ReplayRuns
from infra.postgres.statements import rows
from schemas.turns import TurnState
from tests.integration.gateway.conftest import ORIGIN, Gateway
from workers.dead_letters.replays import Replays

SECRET = "my card is 4111"
_DEAD = text("""
WITH c AS (
    INSERT INTO conversations (tenant_id, conversation_id, last_seq) VALUES (:tenant, :conversation, 1)
    RETURNING tenant_id, conversation_id
), t AS (
    INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, body_sha256, kafka_topic,
                       kafka_partition, kafka_offset, state, agent, closing, deadline_at, done_at)
    SELECT gen_random_uuid(), tenant_id, conversation_id, 1, 'test', :asked, '', 'fairlead.turns', 0, 5, 'bounded',
           'discovery', '<p>sorry, one of us will write</p>', now(), now() FROM c
    RETURNING turn_id, tenant_id, conversation_id
), r AS (
    INSERT INTO turn_records (turn_id, value, headers, produced_ms)
    SELECT turn_id, :value, CAST(:headers AS bytea[]), 0 FROM t
)
INSERT INTO dead_letters (turn_id, tenant_id, conversation_id, reason, stage, agent)
SELECT turn_id, tenant_id, conversation_id, 'queue_deadline', 'queued', 'discovery' FROM t
RETURNING dead_letter_id::text AS id
""")


_END = text("""
UPDATE turns SET state = 'answered', content = '<p>here it is</p>', done_at = now() WHERE done_at IS NULL
""")


async def dead(gateway: Gateway, conversation: str = "c1", asked: str = SECRET) -> str:
    values = {"tenant": gateway.tenant, "conversation": conversation, "asked": asked, "value": b'{"text": "\xff"}'}
    [found] = await rows(gateway.parts.engine, _DEAD, values | {"headers": [b"ce_id", b"1", b"empty", None]})
    return str(found["id"])


async def get(gateway: Gateway, path: str, status: int = 200, key: str | None = None, **query: str) -> Any:
    response = await gateway.http.get(path, params=query, headers=gateway.bearer(key or gateway.operator_key))
    assert response.status_code == status, response.text
    return response.json()


async def post(gateway: Gateway, path: str, body: object = None, status: int = 200, key: str | None = None) -> Any:
    response = await gateway.http.post(path, json=body, headers=gateway.bearer(key or gateway.operator_key))
    assert response.status_code == status, response.text
    return response.json()


async def audit(gateway: Gateway) -> list[tuple[str, str, dict[str, object]]]:
    """Return verb, subject and detail of every row, oldest first."""
    found = await get(gateway, "/v1/audit")
    assert {row["operator"] for row in found["rows"]} <= {gateway.operator_key.split("_")[2]}
    return [(row["verb"], row["subject"], row["detail"]) for row in reversed(found["rows"])]


async def test_listings_hold_no_word_of_a_visitor_and_go_on_page_by_page(gateway: Gateway) -> None:
    """Every letter is listed once, newest first, by filter, and the message's length is all that is told of it."""
    ids = [await dead(gateway, f"c{n}") for n in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = await get(gateway, "/v1/dead-letters", limit="2", where="state=unanswered", **more)
        assert SECRET not in json.dumps(page)
        assert {letter["characters"] for letter in page["dead_letters"]} == {len(SECRET)}
        seen += [letter["dead_letter_id"] for letter in page["dead_letters"]]
        if page["next"] is None:
            break
        cursor = page["next"]
    assert seen == list(reversed(ids))
    assert (await get(gateway, "/v1/dead-letters", where="conversation=c3"))["dead_letters"][0][
        "dead_letter_id"
    ] == ids[3]
    stats = await get(gateway, "/v1/dead-letters/stats")
    assert stats["total"] == 5
    assert [(c["reason"], c["state"], c["agent"], c["n"]) for c in stats["counts"]] == [
        ("queue_deadline", "unanswered", "discovery", 5)
    ]


async def test_what_is_revealed_is_written_down(gateway: Gateway) -> None:
    """Message, record and shown answer come only when asked for, with the record's bytes as they were, and a row."""
    letter = await dead(gateway)
    closed = await get(gateway, f"/v1/dead-letters/{letter}")
    assert SECRET not in json.dumps(closed)
    assert (closed["text"], closed["record"], await audit(gateway)) == (None, None, [])

    shown = await get(gateway, f"/v1/dead-letters/{letter}", reveal="true")
    assert shown["text"] == SECRET
    record = shown["record"]
    assert base64.b64decode(record["value"]) == b'{"text": "\xff"}'
    assert base64.b64decode(record["key"]).decode() == f"{gateway.tenant}:c1"
    assert [(base64.b64decode(h["name"]), h["value"]) for h in record["headers"]] == [
        (b"ce_id", "MQ=="),
        (b"empty", None),
    ]
    assert await audit(gateway) == [("dead_letter_revealed", letter, {})]
    await get(gateway, f"/v1/dead-letters/{uuid.uuid4()}", 404, reveal="true")
    assert len(await audit(gateway)) == 1


async def test_an_export_is_all_of_it_and_audited_when_it_shows_something(gateway: Gateway) -> None:
    """JSON lines for every letter meant; texts only with `reveal`, and that leaves its row."""
    for n in range(3):
        await dead(gateway, f"c{n}")
    headers = gateway.bearer(gateway.operator_key)
    plainly = await gateway.http.get("/v1/dead-letters/export", headers=headers)
    assert plainly.headers["content-type"].startswith("application/x-ndjson")
    assert len(plainly.text.splitlines()) == 3
    assert SECRET not in plainly.text
    assert await audit(gateway) == []
    shown = await gateway.http.get("/v1/dead-letters/export?reveal=true&where=conversation%3Dc1", headers=headers)
    [line] = [json.loads(line) for line in shown.text.splitlines()]
    assert line["text"] == SECRET
    assert await audit(gateway) == [("dead_letters_exported", "dead_letters", {"where": "conversation=c1"})]


async def test_discarding_says_who_and_why(gateway: Gateway) -> None:
    """By filter or by ids; an empty filter is refused; again changes nothing; each has its row."""
    first, second = await dead(gateway, "c1"), await dead(gateway, "c2")
    for body in ({"where": "", "reason": "r"}, {"reason": "r"}, {"where": "times=1", "ids": [first], "reason": "r"}):
        await post(gateway, "/v1/dead-letters/discard", body, 422)
    told = await post(gateway, "/v1/dead-letters/discard", {"ids": [first, str(uuid.uuid4())], "reason": "a test"})
    assert told == {"discarded": 1}
    told = await post(gateway, "/v1/dead-letters/discard", {"where": "agent=discovery", "reason": "old"})
    assert told == {"discarded": 1}
    assert await post(gateway, "/v1/dead-letters/discard", {"ids": [second], "reason": "again"}) == {"discarded": 0}
    details = [(verb, detail["reason"], detail["discarded"]) for verb, _, detail in await audit(gateway)]
    assert details == [
        ("dead_letters_discarded", "a test", 1),
        ("dead_letters_discarded", "old", 1),
        ("dead_letters_discarded", "again", 0),
    ]


async def test_only_operators_and_only_their_own(gateway: Gateway) -> None:
    """Plain keys are refused, another tenant's operator finds nothing, and nobody's records need the wider scope."""
    letter = await dead(gateway)
    rival = f"{gateway.tenant}-rival"
    await gateway.parts.tenants.create(rival, name="Rival")
    foreign = await gateway.parts.tenants.create_key(rival, scopes=("operator",))
    job = (await post(gateway, "/v1/replay-jobs", {"where": "times=1"}, 201))["job"]["job_id"]
    for path in (
        "/v1/dead-letters",
        f"/v1/dead-letters/{letter}",
        "/v1/dead-letters/export",
        "/v1/replay-jobs",
        "/v1/audit",
    ):
        assert (await get(gateway, path, 403, gateway.key))["code"] == "scope_missing"
    assert (await get(gateway, "/v1/dead-letters", key=foreign))["dead_letters"] == []
    assert (await get(gateway, "/v1/audit", key=foreign))["rows"] == []
    await get(gateway, f"/v1/dead-letters/{letter}", 404, foreign)
    await get(gateway, f"/v1/dead-letters/{letter}", 404, foreign, reveal="true")
    await get(gateway, f"/v1/replay-jobs/{job}", 404, foreign)
    await get(gateway, f"/v1/replay-jobs/{job}/items", 404, foreign)
    await post(gateway, f"/v1/replay-jobs/{job}/abort", None, 404, foreign)
    told = await post(gateway, "/v1/dead-letters/discard", {"ids": [letter], "reason": "r"}, key=foreign)
    assert told == {"discarded": 0}

    await rows(
        gateway.parts.engine, text("INSERT INTO dead_letters (reason, stage) VALUES ('undecodable', 'decode')"), {}
    )
    assert len((await get(gateway, "/v1/dead-letters"))["dead_letters"]) == 1
    owners = [Owner(gateway.tenant, installation=wide) for wide in (False, True)]
    found = [await list_letters(gateway.parts.engine, owner, None, after=None, limit=9) for owner in owners]
    assert [len(one) for one in found] == [1, 2]


async def test_a_job_is_planned_begun_watched_and_compared(gateway: Gateway) -> None:
    """A dry run changes nothing; a job can be paused, resumed and aborted; its items show old beside new on request."""
    await dead(gateway, "c1")
    await dead(gateway, "c2")
    asked = {"where": "state=unanswered", "mode": "compare", "rate": 1000, "dry_run": True}
    planned = await post(gateway, "/v1/replay-jobs", asked)
    assert planned["job"] is None
    assert planned["plan"]["counts"] == {"answer": 2}
    assert len(planned["plan"]["sample"]) == 2
    assert SECRET not in json.dumps(planned)
    assert (await get(gateway, "/v1/replay-jobs"))["jobs"] == []
    for where in ("", "colour=blue"):
        assert (await post(gateway, "/v1/replay-jobs", asked | {"where": where}, 422))["code"] == "invalid_filter"

    job = (await post(gateway, "/v1/replay-jobs", asked | {"dry_run": False}, 201))["job"]
    path = f"/v1/replay-jobs/{job['job_id']}"
    assert (job["state"], job["total"], job["waiting"], job["max"]) == ("running", 2, 2, 500)
    assert job["eta_seconds"] is not None
    assert (await post(gateway, f"{path}/pause"))["state"] == "paused"
    assert (await post(gateway, f"{path}/pause"))["state"] == "paused"
    assert (await post(gateway, f"{path}/resume"))["state"] == "running"
    await _answer_one(gateway)
    closed = await get(gateway, f"{path}/items", limit="1")
    assert closed["next"] == 1
    [item] = closed["items"]
    assert (item["state"], item["same"], item["difference"], item["old"]["text"]) == ("answered", False, None, None)
    shown = (await get(gateway, f"{path}/items", state="answered", reveal="true"))["items"][0]
    assert (shown["old"]["state"], shown["old"]["text"]) == ("bounded", "sorry, one of us will write")
    assert (shown["new"]["state"], shown["new"]["text"]) == ("answered", "here it is")
    assert "-sorry, one of us will write\n+here it is" in shown["difference"]
    assert (await post(gateway, f"{path}/abort"))["state"] == "aborted"
    assert (await post(gateway, f"{path}/resume", None, 409))["code"] == "job_state"
    [listed] = (await get(gateway, "/v1/replay-jobs"))["jobs"]
    assert (listed["state"], listed["answered"], listed["eta_seconds"]) == ("aborted", 1, None)
    assert [verb for verb, subject, _ in await audit(gateway) if subject == job["job_id"]] == [
        "replay_created", "replay_paused", "replay_resumed", "replay_revealed", "replay_aborted",
    ]  # fmt: skip


async def _answer_one(gateway: Gateway) -> None:
    """Start the job's first replay and end its turn."""
    engine, redis = gateway.parts.engine, gateway.parts.redis
    runs = ReplayRuns(engine, owner="test", lease=15, waiting=600, history=20)
    replays = Replays(runs=runs, redis=redis, batch=1)
    await replays.run_once()
    end = text(
        "UPDATE turns SET state = 'answered', content = '<p>here it is</p>', done_at = now() WHERE done_at IS NULL"
    )
    await rows(engine, end, {})
    while not await runs.book(10):
        pass


async def test_conversations_of_replays_cannot_be_entered(gateway: Gateway) -> None:
    """No door takes a message for them, no page gets a token for one, and no plain key reads them."""
    name = f"replay.{uuid.uuid4()}.1"
    refused = await gateway.http.post(f"/v1/conversations/{name}/turns", json={"text": "hi"})
    assert (refused.status_code, refused.json()["code"]) == (403, "conversation_reserved")
    assert "choose another" in refused.json()["detail"]
    refused = await gateway.http.post(
        "/v1/chat/completions",
        json={"model": "fairlead", "messages": [{"role": "user", "content": "hi"}]},
        headers={"X-Fairlead-Conversation": name},
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "conversation_reserved")
    refused = await gateway.http.post(
        "/v1/widget/tokens", json={"site_key": gateway.site_key, "conversation_id": name}, headers={"Origin": ORIGIN}
    )
    assert (refused.status_code, refused.json()["code"]) == (403, "conversation_reserved")
    assert (await gateway.http.get(f"/v1/conversations/{name}")).status_code == 403
    shadow = await dead(gateway, name)
    [turn] = await rows(gateway.parts.engine, text("SELECT turn_id::text AS id FROM turns"), {})
    assert shadow
    await get(gateway, f"/v1/turns/{turn['id']}", 404, gateway.key)
    assert (await get(gateway, f"/v1/turns/{turn['id']}"))["state"] == TurnState.BOUNDED


async def test_the_audit_can_only_grow(gateway: Gateway) -> None:
    """The database itself refuses to change, remove or empty what was written down."""
    letter = await dead(gateway)
    await get(gateway, f"/v1/dead-letters/{letter}", reveal="true")
    for statement in (
        "UPDATE operator_audit SET operator = 'somebody else'",
        "DELETE FROM operator_audit",
        "TRUNCATE operator_audit",
    ):
        async with gateway.parts.engine.connect() as connection:
            with pytest.raises(DBAPIError, match="append-only"):
                await connection.execute(text(statement))
    assert await audit(gateway) == [("dead_letter_revealed", letter, {})]


@pytest.mark.parametrize("cursor", ["x", "AAAA", base64.urlsafe_b64encode(b"2026-01-01 x").decode().rstrip("=")])
async def test_a_cursor_that_is_none_is_refused(gateway: Gateway, cursor: str) -> None:
    """What no page gave is refused with what to send."""
    for path in ("/v1/dead-letters", "/v1/replay-jobs"):
        assert (await get(gateway, path, 422, cursor=cursor))["code"] == "invalid_cursor"


async def test_a_path_with_two_methods_names_both(gateway: Gateway) -> None:
    """A method that a path does not have is answered with all that it has, and a word is not taken for an id."""
    for path, methods in (("replay-jobs", "GET, POST"), ("dead-letters/discard", "POST"), ("dead-letters", "GET")):
        refused = await gateway.http.delete(f"/v1/{path}")
        assert (refused.status_code, refused.headers["allow"]) == (405, methods)
