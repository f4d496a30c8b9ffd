"""People in place of agents, at the gateway: who may, what is refused, and what the visitor's socket gets."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from infra.policy import load_policy
from infra.postgres.audit import load_audit
from infra.postgres.statements import rows
from infra.postgres.sweeps import Sweeps
from producers.gateway.takeovers import html_of
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.worker import Worker
from workers.answers.abandoned import AbandonedSettler
from workers.answers.sanitise import HtmlStream

TAKEOVER = "/v1/conversations/c1/takeover"
MESSAGES = "/v1/conversations/c1/messages"


async def ask(gateway: Gateway, method: str, path: str, body: Any = None, key: str | None = None, **more: str) -> Any:
    headers = gateway.bearer(key or gateway.operator_key, **more)
    response = await gateway.http.request(method, path, json=body, headers=headers)
    return response.status_code, response.json()


async def end_what_is_late(gateway: Gateway) -> None:
    """Do what upkeep does for turns whose deadline has passed."""
    policy, engine = load_policy(), gateway.parts.engine
    sweeps = Sweeps(engine, deadlines=policy.deadlines, rescues=policy.rescues, actor="upkeep@test")
    settler = AbandonedSettler(
        engine=engine, frames=gateway.parts.frames, redis=gateway.parts.redis, actor="upkeep@test", policy=policy
    )
    for turn in sorted(await sweeps.fence_late(), key=lambda turn: turn.seq):
        await settler.persons(turn)


async def test_a_person_takes_writes_and_gives_back(gateway: Gateway, worker: Worker) -> None:
    """Each state is told, what is repeated is the same, and who did what is in the audit without the visitor's text."""
    await worker.take(await gateway.submit(text="a person please"))
    status, state = await ask(gateway, "GET", TAKEOVER)
    assert (status, state["keeper"], state["since"]) == (200, "agent", None)
    for _ in range(2):
        status, state = await ask(gateway, "POST", TAKEOVER, {"operator": "Ann", "reason": "asked"})
        assert (status, state["keeper"], state["operator"], state["reason"]) == (200, "human", "Ann", "asked")
    assert await ask(gateway, "GET", TAKEOVER) == (200, state)

    key = {"Idempotency-Key": "k1"}
    status, written = await ask(gateway, "POST", MESSAGES, {"text": "Hello,\nthis is <Ann>."}, **key)
    assert status == 202
    assert await ask(gateway, "POST", MESSAGES, {"text": "Hello,\nthis is <Ann>."}, **key) == (202, written)
    status, problem = await ask(gateway, "POST", MESSAGES, {"text": "Another one"}, **key)
    assert (status, problem["code"]) == (409, "key_reused")
    status, turn = await ask(gateway, "GET", f"/v1/turns/{written['turn_id']}")
    assert (turn["said_by"], turn["state"], turn["kafka"], turn["kept_by"]["operator"]) == (
        "Ann",
        "received",
        None,
        "Ann",
    )
    _, transcript = await ask(gateway, "GET", "/v1/conversations/c1", key=gateway.key)
    assert [(t["said_by"], t["text"], t["answer"]) for t in transcript["turns"]] == [
        (None, "a person please", None),
        ("Ann", "", None),
    ]

    for _ in range(2):
        status, state = await ask(gateway, "DELETE", TAKEOVER)
        assert (status, state["keeper"], state["operator"]) == (200, "agent", None)
    audited = await load_audit(
        gateway.parts.engine, tenant=gateway.tenant, installation=False, subject="c1", before=2**62, limit=9
    )
    assert [(a.verb, a.operator) for a in audited[::-1]] == [
        (verb, gateway.operator_key.split("_")[2])
        for verb in ("conversation_taken", "conversation_said", "conversation_given_back")
    ]
    assert "Hello" not in str(audited)


async def test_what_cannot_be_is_a_problem(gateway: Gateway, worker: Worker) -> None:
    """Plain keys, other tenants, conversations that are not there or not taken, and bodies that say nothing."""
    await worker.take(await gateway.submit())
    taking = {"operator": "Ann"}
    for method, path, body in (
        ("GET", TAKEOVER, None),
        ("POST", TAKEOVER, taking),
        ("DELETE", TAKEOVER, None),
        ("POST", MESSAGES, {"text": "x"}),
    ):
        status, problem = await ask(gateway, method, path, body, key=gateway.key)
        assert (status, problem["code"]) == (403, "scope_missing")
        elsewhere = path.replace("c1", "nowhere")
        status, problem = await ask(gateway, method, elsewhere, body)
        assert (status, problem["code"]) == (404, "unknown_conversation")
        status, problem = await ask(gateway, method, path.replace("c1", "replay.1"), body)
        assert (status, problem["code"]) == (403, "conversation_reserved")
    status, problem = await ask(gateway, "POST", MESSAGES, {"text": "x"})
    assert (status, problem["code"]) == (409, "not_taken_over")
    assert (await ask(gateway, "POST", TAKEOVER, taking))[0] == 200
    for path, body in (
        (TAKEOVER, {"operator": ""}),
        (TAKEOVER, {"operator": "A\nnn"}),
        (TAKEOVER, {"who": "Ann"}),
        (TAKEOVER, {"reason": "x" * 201}),
        (MESSAGES, {}),
        (MESSAGES, {"text": "  "}),
        (MESSAGES, {"text": "\x01"}),
        (MESSAGES, {"text": "x" * 16_001}),
    ):
        status, problem = await ask(gateway, "POST", path, body)
        assert (status, problem["type"].startswith("/problems/")) == (422, True), body


async def test_half_a_character_is_a_problem(gateway: Gateway, worker: Worker) -> None:
    """A lone surrogate, as JSON may write it, is no text."""
    await worker.take(await gateway.submit())
    assert (await ask(gateway, "POST", TAKEOVER, {}))[0] == 200
    headers = gateway.bearer(gateway.operator_key, **{"Content-Type": "application/json"})
    response = await gateway.http.post(MESSAGES, content=b'{"text": "\\ud800"}', headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


async def test_whoever_watches_sees_what_a_person_writes(gateway: Gateway, worker: Worker) -> None:
    """The message is a stream like any answer's, and every frame of it can be told again from the ledger alone."""
    await worker.take(await gateway.submit())
    await ask(gateway, "POST", TAKEOVER, {"operator": "Ann"})
    _, written = await ask(gateway, "POST", MESSAGES, {"text": "Hello, this is Ann."})
    await rows(gateway.parts.engine, text("UPDATE turns SET deadline_at = deadline_at - interval '1 day'"), {})
    await end_what_is_late(gateway)
    streams: list[str] = []
    for _ in range(2):
        response = await gateway.http.get(f"/v1/turns/{written['turn_id']}/events")
        streams.append(response.text)
        await gateway.parts.redis.flushall()
    assert streams[0] == streams[1]
    assert streams[0].count('"phase":"streaming"') == 1
    assert "<p>Hello, this is Ann.</p>" in streams[0]
    assert streams[0].endswith("data: [DONE]\n\n")
    _, transcript = await ask(gateway, "GET", "/v1/conversations/c1", key=gateway.key)
    assert [(t["state"], t["said_by"]) for t in transcript["turns"]] == [("handed_off", None), ("answered", "Ann")]


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=60))
def test_a_persons_text_is_never_markup(written: str) -> None:
    """The sanitiser of agents' answers finds nothing to change in what a person's text became."""
    stream = HtmlStream()
    shown = html_of(written)
    assert stream.feed(shown) + stream.finish() == shown
    assert stream.closers() == ""


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
        ("<script>alert(1)</script> & so on", "<p>&lt;script&gt;alert(1)&lt;/script&gt; &amp; so on</p>"),
        ("\x07", ""),
    ],
)
def test_a_persons_text_keeps_its_lines(written: str, expected: str) -> None:
    """Lines and paragraphs are kept, and characters that mean something in HTML are written out."""
    assert html_of(written) == expected


async def test_who_has_which_conversation_is_listed_with_what_waits(gateway: Gateway, worker: Worker) -> None:
    """Page by page, the tenant's own only; a message counts until a person has written after it."""
    for conversation in ("c1", "c2", "c3"):
        await worker.take(await gateway.submit(conversation, text="a person please"))
        path = f"/v1/conversations/{conversation}/takeover"
        assert (await ask(gateway, "POST", path, {"operator": "Ann", "reason": conversation}))[0] == 200
    assert (await ask(gateway, "DELETE", "/v1/conversations/c2/takeover"))[0] == 200
    assert (await ask(gateway, "POST", MESSAGES, {"text": "Hello, this is Ann."}))[0] == 202

    status, first = await ask(gateway, "GET", "/v1/takeovers?limit=1")
    assert (status, first["next"]) == (200, "c1")
    status, rest = await ask(gateway, "GET", f"/v1/takeovers?after={first['next']}")
    assert (status, rest["next"]) == (200, None)
    listed = [(one["conversation_id"], one["operator"], one["unanswered"]) for one in first["rows"] + rest["rows"]]
    assert listed == [("c1", "Ann", 0), ("c3", "Ann", 1)]
    assert (await ask(gateway, "GET", "/v1/takeovers", key=gateway.key))[0] == 403
