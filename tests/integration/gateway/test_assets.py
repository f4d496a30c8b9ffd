"""Assets as a browser gets them: by their address alone, and never as anything that runs."""

import hashlib

import pytest
from httpx2 import AsyncClient
from sqlalchemy import text

from infra.postgres.assets import Assets
from infra.settings import Settings
from schemas.assets import MediaType, new_asset_id
from schemas.ids import TurnId
from tests.integration.gateway.conftest import Gateway, running

TURN = TurnId("00000000-0000-4000-8000-000000000001")

CSP = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


async def _turn(gateway: Gateway) -> None:
    async with gateway.parts.engine.begin() as connection:
        values = {"turn": TURN, "tenant": gateway.tenant}
        await connection.execute(
            text("INSERT INTO conversations (tenant_id, conversation_id) VALUES (:tenant, 'c1')"), values
        )
        await connection.execute(
            text(
                "INSERT INTO turns (turn_id, tenant_id, conversation_id, seq, channel, input_text, body_sha256,"
                " kafka_topic, kafka_partition, kafka_offset, state, deadline_at)"
                " VALUES (CAST(:turn AS uuid), :tenant, 'c1', 1, 'test', 'hi', '', 't', 0, 0, 'queued', now())"
            ),
            values,
        )


async def test_whoever_has_the_link_reads_the_file_and_nothing_runs(gateway: Gateway) -> None:
    """Each type is served as exactly itself, guarded, cached and named by us, to a client without any credential."""
    await _turn(gateway)
    assets = Assets(gateway.parts.engine)
    async with AsyncClient(base_url=gateway.url) as visitor:
        for kind, shown, suffix in (
            (MediaType.SVG, "image/svg+xml", "svg"),
            (MediaType.PNG, "image/png", "png"),
            (MediaType.JPEG, "image/jpeg", "jpg"),
            (MediaType.WEBP, "image/webp", "webp"),
            (MediaType.MERMAID, "text/plain; charset=utf-8", "mmd"),
        ):
            content = f"<svg>{kind}</svg>".encode()
            asset_id = await assets.keep(TURN, kind, content)
            digest = hashlib.sha256(content).hexdigest()

            answer = await visitor.get(f"/v1/assets/{asset_id}", headers={"Origin": "https://shop.example.com"})

            assert (answer.status_code, answer.content) == (200, content)
            assert answer.headers["content-type"] == shown
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"] == CSP
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
            assert answer.headers["cache-control"].endswith("immutable")
            name = "diagram" if suffix in ("svg", "mmd") else "image"
            assert answer.headers["content-disposition"] == f'inline; filename="{name}-{digest[:8]}.{suffix}"'
            assert answer.headers["etag"] == f'"{digest}"'

            again = await visitor.get(f"/v1/assets/{asset_id}", headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["content-security-policy"] == CSP


async def test_what_is_not_there_tells_nothing(gateway: Gateway) -> None:
    """A guessed id gets the same problem whoever asks, and a name that is no id is no path."""
    for asset_id, status in (("A" * 32, 404), ("1", 422), ("..%2f..%2fetc", 404)):
        answers = [
            await gateway.http.get(f"/v1/assets/{asset_id}"),
            await gateway.http.get(f"/v1/assets/{asset_id}", headers={"Authorization": ""}),
        ]
        assert [answer.status_code for answer in answers] == [status, status]
        assert answers[0].json() == answers[1].json()
        assert f'"{asset_id}' not in answers[0].text


async def test_guessing_is_slowed_down(gateway_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that asks too often waits."""
    monkeypatch.setattr("producers.gateway.process.ASSETS_PER_MINUTE", 2)
    async with running(gateway_settings) as gateway:
        answers = [await gateway.http.get(f"/v1/assets/{new_asset_id()}") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert int(answers[-1].headers["retry-after"]) >= 1
