"""Submitting turns: what is accepted, what is refused and how, and that the same message is one turn."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from infra.settings import Settings
from schemas.ids import turn_id_for
from schemas.turns import TurnState
from tests.integration.gateway.conftest import Gateway, running
from tests.integration.gateway.worker import PIECES, Worker

PROBLEM = "application/problem+json"
TURNS = "/v1/conversations/c1/turns"


async def test_accepted_turn_arrives_on_kafka(gateway: Gateway, worker: Worker) -> None:
    """202 means that the event log has the message, whole, with the turn's derived id and its digest."""
    body = {"text": "Grüße 🙂", "channel": "web_chat", "metadata": {"page": "/pricing", "n": [1, 2.5, None]}}
    response = await gateway.http.post(TURNS, json=body, headers={"Idempotency-Key": "k-1"})
    assert response.status_code == 202
    accepted = response.json()
    assert accepted["turn_id"] == turn_id_for(gateway.tenant, "k-1")
    assert accepted["events_url"] == f"{gateway.url}/v1/turns/{accepted['turn_id']}/events"
    event = await worker.arrival(accepted["turn_id"])
    assert (event.text, event.channel, event.metadata) == (body["text"], body["channel"], body["metadata"])
    assert event.tenant_id == gateway.tenant


async def test_twenty_at_once_under_one_key_are_one_turn(gateway: Gateway) -> None:
    """Concurrent copies of a message get one turn's id."""
    turns = await asyncio.gather(*(gateway.submit(key="same") for _ in range(20)))
    assert len(set(turns)) == 1


async def test_other_content_under_a_used_key_is_refused(gateway: Gateway) -> None:
    """A key stands for one message: other text, or another conversation, is a 409."""
    await gateway.submit(text="first", key="once")
    for conversation, text in (("c1", "second"), ("c2", "first")):
        response = await gateway.http.post(
            f"/v1/conversations/{conversation}/turns", json={"text": text}, headers={"Idempotency-Key": "once"}
        )
        assert response.status_code == 409
        assert response.json()["code"] == "key_reused"
    assert await gateway.submit(text="first", key="once")


async def test_keys_of_tenants_do_not_meet(gateway: Gateway) -> None:
    """The same key of another tenant is another turn."""
    mine = await gateway.submit(key="k")
    response = await gateway.http.post(
        TURNS, json={"text": "other"}, headers=gateway.bearer(gateway.other_key, **{"Idempotency-Key": "k"})
    )
    assert response.status_code == 202
    assert response.json()["turn_id"] != mine


async def test_without_a_key_every_message_is_a_turn(gateway: Gateway) -> None:
    """Two messages without a key are two turns."""
    assert await gateway.submit() != await gateway.submit()


BAD_BODIES: list[tuple[str, bytes, int]] = [
    ("empty body", b"", 422),
    ("not JSON", b"{", 400),
    ("invalid UTF-8", b'{"text": "\xff\xfe"}', 400),
    ("lone surrogate", b'{"text": "\\ud800"}', 400),
    ("lone surrogate in metadata", b'{"text": "a", "metadata": {"k": "\\udc00"}}', 400),
    ("not a number", b'{"text": "a", "metadata": {"k": NaN}}', 400),
    ("nested without end", b'{"text": "a", "metadata": {"k": ' + b"[" * 5000 + b"]" * 5000 + b"}}", 400),
    ("endless number", b'{"text": "a", "metadata": {"k": ' + b"9" * 6000 + b"}}", 400),
    ("a list", b"[]", 422),
    ("a string", b'"text"', 422),
    ("null", b"null", 422),
    ("no text", b"{}", 422),
    ("empty text", b'{"text": ""}', 422),
    ("blank text", b'{"text": " \\n\\t"}', 422),
    ("NUL", b'{"text": "a\\u0000b"}', 422),
    ("NUL in metadata", b'{"text": "a", "metadata": {"k": "\\u0000"}}', 422),
    ("text too long", json.dumps({"text": "x" * 16_001}).encode(), 422),
    ("text of a wrong type", b'{"text": 7}', 422),
    ("metadata of a wrong type", b'{"text": "a", "metadata": []}', 422),
    ("metadata too large", json.dumps({"text": "a", "metadata": {"k": "x" * 5000}}).encode(), 422),
    ("bad channel", b'{"text": "a", "channel": "Web Chat"}', 422),
    ("unknown field", b'{"text": "a", "txet": "b"}', 422),
    ("too large", json.dumps({"text": "x" * 200_000}).encode(), 413),
]


async def test_bad_body_is_a_problem(gateway: Gateway) -> None:
    """Whatever the body, the answer is a problem that says what to do and repeats nothing of it."""
    for name, body, status in BAD_BODIES:
        response = await gateway.http.post(TURNS, content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM), name
        problem = response.json()
        assert problem["status"] == status, name
        assert problem["detail"], name
        assert "xxxx" not in response.text, name


async def test_chunked_body_is_counted(gateway: Gateway) -> None:
    """A body without a declared length is refused once it becomes too large."""

    async def endless() -> AsyncIterator[bytes]:
        yield b'{"text": "'
        for _ in range(40):
            yield b"x" * 10_000
        yield b'"}'

    response = await gateway.http.post(TURNS, content=endless(), headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


async def test_bad_conversation_id_is_refused(gateway: Gateway) -> None:
    """An id that could not be split from its tenant again is no id."""
    for conversation in ("-x", "a%20b", "a%00b", "a" * 129, "%F0%9F%99%82", "a:b", "a%0A"):
        response = await gateway.http.post(f"/v1/conversations/{conversation}/turns", json={"text": "a"})
        assert response.status_code == 422, conversation


async def test_bad_idempotency_key_is_refused(gateway: Gateway) -> None:
    """A key is 1 to 255 visible ASCII characters."""
    for key in (b"", b"with space", "ü".encode(), b"k" * 256):
        response = await gateway.http.post(TURNS, json={"text": "a"}, headers={b"Idempotency-Key": key})
        assert response.status_code == 422, key


BAD_CREDENTIALS = ["", "Bearer", "Basic abc", "Bearer x", "Bearer fl_live_0123", "Bearer a.b.c", "Bearer " + "x" * 5000]


async def test_bad_credential_is_401(gateway: Gateway) -> None:
    """Without a valid credential nothing is served, and the answer says how to show one."""
    for credential in BAD_CREDENTIALS:
        headers = {"Authorization": credential}
        for method, path in (("POST", TURNS), ("GET", "/v1/conversations/c1"), ("GET", "/v1/models")):
            response = await gateway.http.request(method, path, json={"text": "a"}, headers=headers)
            assert response.status_code == 401, credential
            assert response.headers["www-authenticate"] == "Bearer"


async def test_key_with_a_changed_secret_is_401(gateway: Gateway) -> None:
    """A known key id with another secret opens nothing."""
    wrong = gateway.key[:-1] + ("A" if gateway.key[-1] != "A" else "B")
    response = await gateway.http.post(TURNS, json={"text": "a"}, headers=gateway.bearer(wrong))
    assert response.status_code == 401


async def test_revoked_and_expired_keys_are_401(gateway: Gateway) -> None:
    """A key's life can end early or on a date."""
    tenants = gateway.parts.tenants
    revoked = await tenants.create_key(gateway.tenant)
    assert (await gateway.http.get("/v1/models", headers=gateway.bearer(revoked))).status_code == 200
    assert await tenants.revoke(revoked.split("_")[2])
    expired = await tenants.create_key(gateway.tenant, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    for key in (revoked, expired):
        assert (await gateway.http.get("/v1/models", headers=gateway.bearer(key))).status_code == 401


async def test_operator_key_alone_cannot_submit(gateway: Gateway) -> None:
    """A key does what its scopes say."""
    key = await gateway.parts.tenants.create_key(gateway.tenant, scopes=("operator",))
    response = await gateway.http.post(TURNS, json={"text": "a"}, headers=gateway.bearer(key))
    assert (response.status_code, response.json()["code"]) == (403, "scope_missing")


async def test_turn_can_be_asked_for_at_every_stage(gateway: Gateway, worker: Worker) -> None:
    """A turn is known from its acceptance on; its answer appears with its end."""
    turn_id = await gateway.submit()
    assert (await gateway.http.get(f"/v1/turns/{turn_id}")).json()["state"] == "received"
    turn = await worker.take(turn_id)
    await turn.route()
    queued = (await gateway.http.get(f"/v1/turns/{turn_id}")).json()
    assert (queued["state"], queued["agent"], queued["answer"]) == ("queued", "support", None)
    await turn.say(*PIECES)
    await turn.settle()
    done = (await gateway.http.get(f"/v1/turns/{turn_id}")).json()
    assert (done["state"], done["answer"], done["seq"]) == ("answered", {"html": "".join(PIECES)}, 1)
    assert "attempts" not in done


async def test_operator_sees_ledger_and_timings(gateway: Gateway, answering: Worker) -> None:
    """An operator's key shows the model calls, the history and where the time went."""
    turn_id = await gateway.submit()
    details = await until_done(gateway, turn_id, gateway.operator_key)
    assert [a["model"] for a in details["attempts"]] == ["tiny"]
    assert details["timings"]["done"] > 0
    assert details["events"] == []


async def test_foreign_turn_is_404(gateway: Gateway, worker: Worker) -> None:
    """Another tenant's turn does not exist, recorded or just accepted, operator or not."""
    accepted = await gateway.submit()
    recorded = (await worker.take(await gateway.submit())).turn_id
    for turn_id in (accepted, recorded):
        response = await gateway.http.get(f"/v1/turns/{turn_id}", headers=gateway.bearer(gateway.other_key))
        assert (response.status_code, response.json()["code"]) == (404, "unknown_turn")


async def test_unknown_things_are_404(gateway: Gateway) -> None:
    """Unknown turns, conversations and paths are problems."""
    for path in ("/v1/turns/00000000-0000-4000-8000-000000000000", "/v1/conversations/nobody", "/v1/nowhere", "/"):
        response = await gateway.http.get(path)
        assert (response.status_code, response.headers["content-type"]) == (404, PROBLEM)
    assert (await gateway.http.get("/v1/turns/NOT-A-TURN")).status_code == 422


async def test_wrong_method_is_405(gateway: Gateway) -> None:
    """A wrong method says which ones are right."""
    response = await gateway.http.delete(TURNS)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.headers["content-type"] == PROBLEM


async def test_transcript_has_the_conversation_in_order(gateway: Gateway, worker: Worker) -> None:
    """The transcript tells what was asked and what was shown, oldest first, for its tenant alone."""
    for text in ("one", "two"):
        await worker.answer(await worker.take(await gateway.submit("talk", text)), f"<p>{text}!</p>")
    open_turn = await worker.take(await gateway.submit("talk", "three"))
    transcript = (await gateway.http.get("/v1/conversations/talk")).json()
    assert [(t["text"], t["seq"]) for t in transcript["turns"]] == [("one", 1), ("two", 2), ("three", 3)]
    assert [t["answer"] for t in transcript["turns"]] == [{"html": "<p>one!</p>"}, {"html": "<p>two!</p>"}, None]
    await open_turn.settle(TurnState.BOUNDED, closing="<p>Sorry.</p>")
    transcript = (await gateway.http.get("/v1/conversations/talk")).json()
    assert transcript["turns"][2]["answer"] == {"html": "<p>Sorry.</p>"}
    foreign = await gateway.http.get("/v1/conversations/talk", headers=gateway.bearer(gateway.other_key))
    assert foreign.status_code == 404


async def test_too_many_turns_are_429(gateway_settings: Settings) -> None:
    """Past its rate a tenant is told when to come back; other tenants are not held up."""
    async with running(gateway_settings.model_copy(update={"rate_limit_per_minute": 3})) as gateway:
        for _ in range(3):
            await gateway.submit()
        response = await gateway.http.post(TURNS, json={"text": "a"})
        assert response.status_code == 429
        assert 1 <= int(response.headers["retry-after"]) <= 21
        other = await gateway.http.post(TURNS, json={"text": "a"}, headers=gateway.bearer(gateway.other_key))
        assert other.status_code == 202


async def test_ledger_down_turns_are_accepted_all_the_same(gateway: Gateway, worker: Worker) -> None:
    """With PostgreSQL gone a key seen before still opens the door, and Kafka still takes the turn."""
    await gateway.submit()
    broken = gateway.parts.engine.sync_engine
    real = broken.pool
    async with asyncio.timeout(30):
        broken.pool = real.recreate()
        broken.pool._creator = refuse  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        turn_id = await gateway.submit(key="down")
        status = (await gateway.http.get("/readyz")).json()["dependencies"]["postgres"]
        lost = await gateway.http.get("/v1/turns/00000000-0000-4000-8000-000000000000")
        broken.pool = real
    assert (await worker.arrival(turn_id)).turn_id == turn_id
    assert status == "down"
    assert (lost.status_code, lost.headers["retry-after"]) == (503, "2")
    assert await gateway.submit(key="down") == turn_id


async def test_health_ready_and_metrics(gateway: Gateway) -> None:
    """A healthy gateway says so, names its dependencies, and counts what it accepted."""
    await gateway.submit()
    health = await gateway.http.get("/healthz")
    ready = await gateway.http.get("/readyz")
    numbers = await gateway.http.get("/metrics")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert ready.json()["dependencies"] == {"kafka": "ok", "redis": "ok", "postgres": "ok", "accepting": "ok"}
    assert 'fairlead_turns_accepted_total{door="http"}' in numbers.text
    gateway.parts.draining.set()
    assert (await gateway.http.get("/readyz")).status_code == 503


async def test_bug_is_a_500_without_insides(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A surprise is a problem that shows nothing of what is inside."""

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr(type(gateway.parts.admission), "submit", broken)
    response = await gateway.http.post(TURNS, json={"text": "a"})
    assert (response.status_code, response.headers["content-type"]) == (500, PROBLEM)
    assert "secret" not in response.text
    assert "Zero" not in response.text


async def test_trace_goes_along(gateway: Gateway, worker: Worker) -> None:
    """The caller's trace is carried into the event's headers."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = await gateway.http.post(TURNS, json={"text": "a"}, headers={"traceparent": trace})
    await worker.arrival(response.json()["turn_id"])
    headers = worker.headers[response.json()["turn_id"]]
    assert headers["traceparent"].split("-")[1] == trace.split("-")[1]
    assert headers["ce_type"] == "io.fairlead.turn.submitted.v1"
    assert headers["ce_tenantid"] == gateway.tenant
    assert headers["ce_partitionkey"] == f"{gateway.tenant}:c1"


async def test_public_url_is_the_base_of_links(gateway_settings: Settings) -> None:
    """Behind a proxy the links name the public address."""
    settings = gateway_settings.model_copy(update={"public_url": "https://talk.example.com/"})
    async with running(settings) as gateway:
        response = await gateway.http.post(TURNS, json={"text": "a"})
        assert response.json()["events_url"].startswith("https://talk.example.com/v1/turns/")


async def test_no_secret_no_widget(gateway_settings: Settings) -> None:
    """Without a signing secret no widget token is issued."""
    async with running(gateway_settings.model_copy(update={"widget_secret": SecretStr("")})) as gateway:
        response = await gateway.http.post("/v1/widget/tokens", json={"site_key": gateway.site_key})
        assert (response.status_code, response.json()["code"]) == (403, "widget_disabled")


async def until_done(gateway: Gateway, turn_id: str, key: str) -> dict[str, Any]:
    """Ask until the turn has ended."""
    async with asyncio.timeout(10):
        while True:
            details = (await gateway.http.get(f"/v1/turns/{turn_id}", headers=gateway.bearer(key))).json()
            if details["done_at"]:
                return details
            await asyncio.sleep(0.02)


def refuse(*_: object, **__: object) -> None:
    raise ConnectionRefusedError("no PostgreSQL here")
