"""The knowledge base at the gateway: written answers, corrections of turns, and who may."""

import uuid
from typing import Any

from sqlalchemy import text

from infra.postgres.statements import rows
from schemas.knowledge_policy import KnowledgePolicy
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.worker import Worker
from tests.support.pipeline import until
from workers.researcher.researcher import Researcher

_AUDIT = text("SELECT tenant_id, verb, subject FROM operator_audit ORDER BY audit_id")
_ANSWERS = "/v1/knowledge/answers"
_PATIENT = KnowledgePolicy(deadline=30, remember=0)


async def _send(gateway: Gateway, method: str, path: str, body: object = None, key: str | None = None) -> Any:
    headers = gateway.bearer(key or gateway.operator_key)
    response = await gateway.http.request(method, path, json=body, headers=headers)
    return response.status_code, response.json()


async def _recorded(gateway: Gateway, turn: str) -> bool:
    return (await _send(gateway, "GET", f"/v1/turns/{turn}"))[0] == 200


async def _best(gateway: Gateway, said: str) -> str | None:
    found = await Researcher(gateway.parts.engine, policy=_PATIENT).retrieve(gateway.tenant, said, language="en")
    return found.passages[0].text if found.passages else None


async def test_an_answer_is_written_corrected_and_removed(gateway: Gateway) -> None:
    """Agents know each change at once, the audit has it without text, and unknown ids are 404."""
    body = {"question": "Do you offer refunds?", "answer": "Within thirty days."}
    status, written = await _send(gateway, "POST", _ANSWERS, body)
    assert (status, written["question"]) == (201, "Do you offer refunds?")
    assert await _best(gateway, "refunds?") == "Within thirty days."
    path = f"{_ANSWERS}/{written['answer_id']}"
    status, corrected = await _send(gateway, "PUT", path, {**body, "answer": "Within sixty days."})
    assert (status, corrected["answer_id"]) == (200, written["answer_id"])
    assert await _best(gateway, "refunds?") == "Within sixty days."
    _, documents = await _send(gateway, "GET", "/v1/knowledge/documents")
    assert [(one["source"], one["kind"]) for one in documents["documents"]] == [
        (f"answer:{written['answer_id']}", "answer")
    ]
    assert [one["answer"] for one in (await _send(gateway, "GET", _ANSWERS))[1]["answers"]] == ["Within sixty days."]
    assert (await _send(gateway, "DELETE", path))[0] == 200
    assert await _best(gateway, "refunds?") is None
    assert (await _send(gateway, "DELETE", path))[0] == 404
    assert (await _send(gateway, "PUT", path, body))[0] == 404
    audited = [tuple(found.values()) for found in await rows(gateway.parts.engine, _AUDIT, {})]
    assert audited == [
        (gateway.tenant, verb, written["answer_id"]) for verb in ("answer.add", "answer.correct", "answer.remove")
    ]


async def test_a_turns_corrected_answer_wins_from_then_on(gateway: Gateway, answering: Worker) -> None:
    """What a visitor asked becomes the question; corrected again it has the last answer; others' turns are unknown."""
    del answering
    turn = await gateway.submit(text="Can I export my invoices?")
    await until(lambda: _recorded(gateway, turn))
    status, written = await _send(gateway, "POST", f"/v1/turns/{turn}/correction", {"answer": "Yes, as CSV."})
    assert (status, written["question"], written["turn_id"]) == (200, "Can I export my invoices?", turn)
    status, _ = await _send(gateway, "POST", f"/v1/turns/{turn}/correction", {"answer": "Yes, as PDF."})
    assert status == 200
    assert await _best(gateway, "can I export invoices") == "Yes, as PDF."
    await gateway.parts.tenants.create("other", name="Other")
    stranger = await gateway.parts.tenants.create_key("other", scopes=("operator",))
    for key, wanted in ((stranger, turn), (gateway.operator_key, str(uuid.uuid4()))):
        status, problem = await _send(gateway, "POST", f"/v1/turns/{wanted}/correction", {"answer": "No."}, key)
        assert (status, problem["code"]) == (404, "unknown_turn")


async def test_only_operators_see_and_change_it(gateway: Gateway) -> None:
    """A key for conversations alone is refused everywhere, and another tenant's answers are unknown."""
    key = await gateway.parts.tenants.create_key(gateway.tenant)
    body = {"question": "Q?", "answer": "A."}
    turn = f"/v1/turns/{uuid.uuid4()}/correction"
    for method, path in (("GET", "/v1/knowledge/documents"), ("GET", _ANSWERS), ("POST", _ANSWERS), ("POST", turn)):
        assert (await _send(gateway, method, path, body if method == "POST" else None, key))[0] == 403
    _, written = await _send(gateway, "POST", _ANSWERS, body)
    await gateway.parts.tenants.create("other", name="Other")
    stranger = await gateway.parts.tenants.create_key("other", scopes=("operator",))
    path = f"{_ANSWERS}/{written['answer_id']}"
    assert (await _send(gateway, "PUT", path, body, stranger))[0] == 404
    assert (await _send(gateway, "DELETE", path, key=stranger))[0] == 404
    assert (await _send(gateway, "GET", _ANSWERS, key=stranger))[1] == {"answers": []}
