"""Visitors of a web page: who gets a token, and what it opens."""

import time
from typing import Any

import jwt

from tests.integration.gateway.conftest import ORIGIN, Gateway
from tests.integration.gateway.worker import Worker

SECRET = "w" * 32


def forged(**changes: Any) -> str:
    """A token as ours would be, with changes."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "aud": "widget",
        "tenant": "acme",
        "conversation": "c1",
        "origin": ORIGIN,
        "iat": now,
        "exp": now + 60,
        "jti": "x",
    }
    claims.update(changes)
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, SECRET, algorithm="HS256")


async def test_visitor_talks_in_a_conversation_of_their_own(gateway: Gateway, worker: Worker) -> None:
    """A page gets a token, and with it submits, watches and reads one conversation."""
    token, conversation = await gateway.visitor_token()
    headers = gateway.bearer(token, Origin=ORIGIN)
    response = await gateway.http.post(f"/v1/conversations/{conversation}/turns", json={"text": "hi"}, headers=headers)
    assert response.status_code == 202
    turn_id = response.json()["turn_id"]
    await worker.answer(await worker.take(turn_id))
    assert (await gateway.http.get(f"/v1/turns/{turn_id}/events", headers=headers)).text.endswith("[DONE]\n\n")
    assert (await gateway.http.get(f"/v1/conversations/{conversation}", headers=headers)).status_code == 200


async def test_token_opens_no_other_conversation(gateway: Gateway, worker: Worker) -> None:
    """A visitor cannot submit to, read or watch what is not theirs."""
    token, _ = await gateway.visitor_token()
    headers = gateway.bearer(token, Origin=ORIGIN)
    other = await worker.take(await gateway.submit("someone-else"))
    assert (
        await gateway.http.post("/v1/conversations/someone-else/turns", json={"text": "hi"}, headers=headers)
    ).status_code == 403
    assert (await gateway.http.get("/v1/conversations/someone-else", headers=headers)).status_code == 403
    assert (await gateway.http.get(f"/v1/turns/{other.turn_id}", headers=headers)).status_code == 404
    assert (await gateway.http.get(f"/v1/turns/{other.turn_id}/events", headers=headers)).status_code == 404


async def test_visitors_keys_do_not_meet(gateway: Gateway) -> None:
    """Two visitors using the same idempotency key get two turns."""
    turns: list[str] = []
    for _ in range(2):
        token, conversation = await gateway.visitor_token()
        response = await gateway.http.post(
            f"/v1/conversations/{conversation}/turns",
            json={"text": "hi"},
            headers=gateway.bearer(token, **{"Origin": ORIGIN, "Idempotency-Key": "1"}),
        )
        turns.append(response.json()["turn_id"])
    assert len(set(turns)) == 2


async def test_only_listed_origins_get_a_token(gateway: Gateway) -> None:
    """The origin must be on the tenant's list, character for character."""
    for origin in (None, "https://evil.example.com", "http://shop.example.com", ORIGIN + "/", "null"):
        headers = {"Origin": origin} if origin else {}
        response = await gateway.http.post("/v1/widget/tokens", json={"site_key": gateway.site_key}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "origin_not_allowed"), origin


async def test_unknown_site_key_gets_no_token(gateway: Gateway) -> None:
    """An unknown site key is refused like a wrong origin."""
    body = {"site_key": "site_" + "0" * 24}
    response = await gateway.http.post("/v1/widget/tokens", json=body, headers={"Origin": ORIGIN})
    assert (response.status_code, response.json()["code"]) == (403, "origin_not_allowed")


async def test_token_used_from_elsewhere_is_403(gateway: Gateway) -> None:
    """A token works only from the page it was issued to."""
    token, conversation = await gateway.visitor_token()
    url = f"/v1/conversations/{conversation}/turns"
    for origin in (None, "https://evil.example.com"):
        headers = gateway.bearer(token) | ({"Origin": origin} if origin else {})
        response = await gateway.http.post(url, json={"text": "hi"}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "origin_mismatch"), origin


async def test_token_that_is_not_ours_is_401(gateway: Gateway) -> None:
    """Expired, altered or incomplete tokens open nothing."""
    good = forged()
    tokens = {
        "expired": forged(exp=int(time.time()) - 1),
        "audience": forged(aud="other"),
        "no origin": forged(origin=None),
        "no jti": forged(jti=None),
        "no end": forged(exp=None),
        "no algorithm": jwt.encode({"aud": "widget"}, None, algorithm="none"),
        "signature": good[:-4] + "AAAA",
        "no claims": good.split(".")[0] + ".." + good.split(".")[2],
    }
    for name, token in tokens.items():
        response = await gateway.http.get("/v1/conversations/c1", headers=gateway.bearer(token, Origin=ORIGIN))
        assert response.status_code == 401, name


async def test_token_of_another_algorithm_is_401(gateway: Gateway) -> None:
    """The algorithm is pinned: the right secret under another one does not help."""
    claims = jwt.decode(forged(), SECRET, algorithms=["HS256"], audience="widget")
    token = jwt.encode(claims, SECRET * 2, algorithm="HS512")
    response = await gateway.http.get("/v1/conversations/c1", headers=gateway.bearer(token, Origin=ORIGIN))
    assert response.status_code == 401


async def test_conversation_made_here_can_be_taken_up_again(gateway: Gateway, worker: Worker) -> None:
    """A returning visitor goes on with the conversation whose unguessable id the page kept."""
    token, conversation = await gateway.visitor_token()
    headers = gateway.bearer(token, Origin=ORIGIN)
    response = await gateway.http.post(f"/v1/conversations/{conversation}/turns", json={"text": "hi"}, headers=headers)
    await worker.take(response.json()["turn_id"])
    _, again = await gateway.visitor_token(conversation)
    assert again == conversation


async def test_existing_conversation_of_others_gets_no_token(gateway: Gateway, worker: Worker) -> None:
    """Guessing the id of a conversation from another channel does not open its transcript."""
    await worker.take(await gateway.submit("crm-4711"))
    response = await gateway.http.post(
        "/v1/widget/tokens",
        json={"site_key": gateway.site_key, "conversation_id": "crm-4711"},
        headers={"Origin": ORIGIN, "Authorization": ""},
    )
    assert (response.status_code, response.json()["code"]) == (403, "conversation_not_yours")


async def test_conversation_named_by_the_page_is_renewed_with_its_token(gateway: Gateway, worker: Worker) -> None:
    """A page that names a fresh conversation itself renews by showing the token it had."""
    token, conversation = await gateway.visitor_token("page-made-1")
    assert conversation == "page-made-1"
    response = await gateway.http.post(
        f"/v1/conversations/{conversation}/turns", json={"text": "hi"}, headers=gateway.bearer(token, Origin=ORIGIN)
    )
    await worker.take(response.json()["turn_id"])
    body = {"site_key": gateway.site_key, "conversation_id": conversation}
    renewed = await gateway.http.post("/v1/widget/tokens", json=body, headers=gateway.bearer(token, Origin=ORIGIN))
    assert renewed.status_code == 200


async def test_page_elsewhere_may_ask(gateway: Gateway) -> None:
    """Browsers at other origins may call the API: what counts is the token."""
    response = await gateway.http.options(
        "/v1/widget/tokens",
        headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Authorization": ""},
    )
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "*"
