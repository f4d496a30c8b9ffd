"""What operators see of a turn beyond what everybody sees: where it, its event and its result are."""

from typing import Any

from sqlalchemy import text

from infra.postgres.statements import rows
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.worker import PIECES, Worker

OPERATORS_ONLY = {
    "attempts", "events", "timings", "deadline_at", "as_of", "text", "epoch", "plan", "behind", "lease", "hints",
    "frames", "dead_letters", "kafka", "result", "trace_id",
}  # fmt: skip
TRACE = "0af7651916cd43dd8448eb211c80319c"

_LOSE = text("""
WITH lost AS (
    UPDATE turns SET owner = 'agents@here:7', lease_until = clock_timestamp() + interval '15 seconds', epoch = 3,
           hints = 2, hinted_at = clock_timestamp(), traceparent = :trace,
           plan = '{"agent": "support", "primary": "frontier", "fallback": "tiny", "direct": true, "why": "a rule"}'
    WHERE turn_id = CAST(:turn_id AS uuid) RETURNING turn_id, kafka_topic, kafka_partition, kafka_offset
)
INSERT INTO dead_letters (turn_id, reason, stage, epoch, kafka_topic, kafka_partition, kafka_offset)
SELECT turn_id, 'worker_lost', 'running', 2, kafka_topic, kafka_partition, kafka_offset FROM lost
""")
_WRITE_RESULT = text("""
INSERT INTO outbox (topic, headers, value, turn_id) VALUES ('fairlead.results', '[]', '', CAST(:turn_id AS uuid))
""")
_PUBLISH = text("UPDATE outbox SET published_at = clock_timestamp() WHERE turn_id = CAST(:turn_id AS uuid)")


async def told(gateway: Gateway, turn_id: str, key: str) -> dict[str, Any]:
    response = await gateway.http.get(f"/v1/turns/{turn_id}", headers=gateway.bearer(key))
    assert response.status_code == 200, response.text
    details: dict[str, Any] = response.json()
    return details


async def test_operators_see_where_an_open_turn_is(gateway: Gateway, worker: Worker) -> None:
    """Lease, hints, plan, dead letters, trace and the event's place in Kafka are there, and nothing has ended."""
    turn = await worker.take(await gateway.submit(text="where am I?"))
    await turn.route()
    await rows(worker.engine, _LOSE, {"turn_id": turn.turn_id, "trace": f"00-{TRACE}-b7ad6b7169203331-01"})
    details = await told(gateway, turn.turn_id, gateway.operator_key)
    assert details.keys() >= OPERATORS_ONLY
    assert details["text"] == "where am I?"
    assert (details["epoch"], details["lease"]["owner"], details["hints"]["sent"]) == (3, "agents@here:7", 2)
    assert details["as_of"] < details["lease"]["until"] < details["deadline_at"]
    assert details["plan"] == {"primary": "frontier", "fallback": "tiny", "direct": True, "why": "a rule"}
    assert [(found["reason"], found["stage"], found["state"]) for found in details["dead_letters"]] == [
        ("worker_lost", "running", "unanswered")
    ]
    assert details["kafka"] == {"topic": "fairlead.turns", "partition": 0, "offset": 1}
    assert details["trace_id"] == TRACE
    assert (details["result"], details["behind"]) == (None, None)
    assert details["frames"] == {"content": 0, "characters": 0, "terminal": None}


async def test_operators_see_whom_a_turn_waits_for(gateway: Gateway, worker: Worker) -> None:
    """A turn names the first open turn before it in its conversation, and no other."""
    first = await worker.take(await gateway.submit(text="one"))
    second = await worker.take(await gateway.submit(text="two"))
    third = await worker.take(await gateway.submit(text="three"))
    assert (await told(gateway, third.turn_id, gateway.operator_key))["behind"] == first.turn_id
    await worker.answer(first)
    assert (await told(gateway, third.turn_id, gateway.operator_key))["behind"] == second.turn_id


async def test_operators_see_whether_the_result_is_published(gateway: Gateway, worker: Worker) -> None:
    """The result of a turn that ended waits until its row in the outbox is marked."""
    turn = await worker.take(await gateway.submit())
    await worker.answer(turn)
    await rows(worker.engine, _WRITE_RESULT, {"turn_id": turn.turn_id})
    waiting = await told(gateway, turn.turn_id, gateway.operator_key)
    await rows(worker.engine, _PUBLISH, {"turn_id": turn.turn_id})
    published = await told(gateway, turn.turn_id, gateway.operator_key)
    assert waiting["result"] == {"topic": "fairlead.results", "state": "waiting"}
    assert published["result"] == {"topic": "fairlead.results", "state": "published"}
    assert published["frames"] == {"content": len(PIECES), "characters": len("".join(PIECES)), "terminal": "done"}
    assert published["lease"] is None


async def test_plain_keys_see_none_of_it(gateway: Gateway, worker: Worker) -> None:
    """A key without the operator's scope, and a visitor's token, get the state and the answer alone."""
    turn = await worker.take(await gateway.submit())
    await worker.answer(turn)
    details = await told(gateway, turn.turn_id, gateway.key)
    assert details["state"] == "answered"
    assert details.keys() & OPERATORS_ONLY == set()
    token, conversation = await gateway.visitor_token()
    visited = await worker.take(await gateway.submit(conversation))
    assert (await told(gateway, visited.turn_id, token)).keys() & OPERATORS_ONLY == set()


async def test_another_tenants_operator_sees_no_turn(gateway: Gateway, worker: Worker) -> None:
    """An operator is one within their tenant: elsewhere there is no such turn."""
    turn = await worker.take(await gateway.submit())
    stranger = await _foreign_operator(gateway)
    response = await gateway.http.get(f"/v1/turns/{turn.turn_id}", headers=gateway.bearer(stranger))
    assert (response.status_code, response.json()["code"]) == (404, "unknown_turn")


async def _foreign_operator(gateway: Gateway) -> str:
    tenants = gateway.parts.tenants
    await tenants.create(f"{gateway.tenant}-rival", name="Rival")
    return await tenants.create_key(f"{gateway.tenant}-rival", scopes=("turns", "operator"))
