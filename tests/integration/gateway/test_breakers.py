"""Breakers at the gateway: who may see them, who may set them, and what is written down."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from infra.postgres.audit import record
from infra.postgres.statements import rows
from tests.integration.gateway.conftest import Gateway

LANE = "agent.discovery"
_AUDIT = text("SELECT tenant_id, operator, verb, subject, detail FROM operator_audit ORDER BY audit_id")


async def installation_key(gateway: Gateway) -> str:
    return await gateway.parts.tenants.create_key(gateway.tenant, scopes=("operator", "installation"))


async def put(gateway: Gateway, key: str, lane: str = LANE, **change: Any) -> Any:
    response = await gateway.http.put(f"/v1/breakers/{lane}", json=change, headers=gateway.bearer(key))
    return response.status_code, response.json()


async def test_operators_see_every_lane_with_a_primary(gateway: Gateway) -> None:
    """Lanes never in doubt are closed; a plain key sees nothing; the way out of the others is no lane of theirs."""
    response = await gateway.http.get("/v1/breakers", headers=gateway.bearer(gateway.operator_key))
    assert response.status_code == 200
    found = response.json()["breakers"]
    assert len(found) == 5
    assert {breaker["state"] for breaker in found} == {"closed"}
    assert (await gateway.http.get("/v1/breakers")).status_code == 403


async def test_what_concerns_every_tenant_needs_the_installations_scope(gateway: Gateway) -> None:
    """A tenant's operator may look and not touch, and nothing of it is written down."""
    status, problem = await put(gateway, gateway.operator_key, forced="open")
    assert (status, problem["code"]) == (403, "scope_missing")
    assert "installation" in problem["detail"]
    assert await rows(gateway.parts.engine, _AUDIT, {}) == []


async def test_setting_a_breaker_is_written_down_with_who_did_it(gateway: Gateway) -> None:
    """Each change has its row, with the key's id; what is absent from a change stays as it was."""
    key = await installation_key(gateway)
    status, state = await put(gateway, key, forced="open", reason="upgrade of the model's server")
    assert (status, state["forced"], state["reason"]) == (200, "open", "upgrade of the model's server")
    status, state = await put(gateway, key, away_seconds=30)
    assert (status, state["forced"]) == (200, "open")
    assert state["away_until"] is not None
    status, state = await put(gateway, key, forced=None)
    assert (status, state["forced"]) == (200, None)
    assert state["away_until"] is not None
    assert (await put(gateway, key, away_seconds=0))[1]["away_until"] is None

    key_id = key.split("_")[2]
    audited = [dict(found) for found in await rows(gateway.parts.engine, _AUDIT, {})]
    assert {(a["tenant_id"], a["operator"], a["subject"]) for a in audited} == {(gateway.tenant, key_id, LANE)}
    assert [(a["verb"], a["detail"].get("forced"), a["detail"].get("away_seconds")) for a in audited] == [
        ("breaker.force", "open", None),
        ("breaker.away", None, 30.0),
        ("breaker.force", "auto", None),
        ("breaker.away", None, 0.0),
    ]


async def test_changes_that_do_not_fit_are_refused(gateway: Gateway) -> None:
    """A lane without a primary, a state there is not, a drill without end, and a change of nothing are 422."""
    key = await installation_key(gateway)
    for lane, change in (
        ("agent.frontier_fallback", {"forced": "open"}),
        ("agentXdiscovery", {"forced": "open"}),
        (LANE, {"forced": "ajar"}),
        (LANE, {"away_seconds": 86_400}),
        (LANE, {"reason": "none"}),
        (LANE, {}),
    ):
        status, _ = await put(gateway, key, lane, **change)
        assert status == 422, (lane, change)
    assert await rows(gateway.parts.engine, _AUDIT, {}) == []


async def test_the_audit_cannot_be_changed(gateway: Gateway) -> None:
    """A row that is written stays: the database refuses to change or to remove it."""
    engine = gateway.parts.engine
    await record(engine, tenant=gateway.tenant, operator="0123456789abcdef", verb="letter.reveal", subject="a letter")
    for statement in ("UPDATE operator_audit SET operator = 'nobody'", "DELETE FROM operator_audit"):
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError, match="append-only"):
                await connection.execute(text(statement))
    [found] = await rows(engine, _AUDIT, {})
    assert (found["operator"], found["verb"], found["detail"]) == ("0123456789abcdef", "letter.reveal", {})
