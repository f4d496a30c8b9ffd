"""The keys of a local system over restarts."""

from pydantic import SecretStr

from cli.endpoints import EndpointsFile
from cli.local_keys import LocalKeys, local_keys
from infra.postgres.engine import create_engine
from infra.postgres.tenants import Tenants

ORIGINS = ("http://127.0.0.1:8080", "http://localhost:8080")


def noted(keys: LocalKeys) -> EndpointsFile:
    """The file an earlier start would have left."""
    return EndpointsFile(
        gateway="",
        console="",
        api_key=keys.api_key,
        operator_key=keys.operator_key,
        site_key=keys.site_key,
        kafka="",
        redis="",
        database="",
        simulators=None,
        processes={},
    )


async def test_keys_that_still_open_are_kept(database_url: str) -> None:
    """A restart keeps the keys, and the site key as long as the gateway is where it was."""
    first = await local_keys(database_url, pepper="p", origins=ORIGINS, earlier=None)
    assert await local_keys(database_url, pepper="p", origins=ORIGINS, earlier=noted(first)) == first
    moved = await local_keys(database_url, pepper="p", origins=("http://127.0.0.1:9090",), earlier=noted(first))
    assert (moved.api_key, moved.operator_key) == (first.api_key, first.operator_key)
    assert moved.site_key != first.site_key


async def test_keys_that_open_nothing_are_made_anew(database_url: str) -> None:
    """A revoked key, and every key of another pepper, is replaced by one that works."""
    first = await local_keys(database_url, pepper="p", origins=ORIGINS, earlier=None)
    engine = create_engine(database_url, pool_size=1)
    tenants = Tenants(engine, pepper=SecretStr("p"))
    await tenants.revoke(first.api_key.split("_")[2])
    second = await local_keys(database_url, pepper="p", origins=ORIGINS, earlier=noted(first))
    assert second.api_key != first.api_key
    assert second.operator_key == first.operator_key
    found = await tenants.verify(second.operator_key)
    assert found is not None
    assert found.scopes == {"turns", "operator", "installation"}
    await engine.dispose()
    third = await local_keys(database_url, pepper="q", origins=ORIGINS, earlier=noted(second))
    assert {third.api_key, third.operator_key}.isdisjoint({second.api_key, second.operator_key})
