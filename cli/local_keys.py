"""The tenant of a local system and the keys to it, kept over restarts as long as they are valid."""

from collections.abc import Collection
from dataclasses import dataclass

from pydantic import SecretStr

from cli.endpoints import EndpointsFile
from infra.postgres.engine import create_engine
from infra.postgres.tenants import Scope, Tenants

TENANT = "demo"
_ENVIRONMENT = "local"
_TURNS: tuple[Scope, ...] = ("turns",)
_OPERATOR: tuple[Scope, ...] = ("turns", "operator", "installation")


@dataclass(frozen=True, kw_only=True)
class LocalKeys:
    """What opens a local system."""

    api_key: str
    operator_key: str
    site_key: str


async def local_keys(
    database: str, *, pepper: str, origins: Collection[str], earlier: EndpointsFile | None
) -> LocalKeys:
    """Return keys for the tenant `demo`: the earlier ones where they still open, new ones otherwise.

    Raises:
        LedgerUnavailable: PostgreSQL does not answer.
    """
    engine = create_engine(database, pool_size=1, name="fairlead-up")
    try:
        tenants = Tenants(engine, pepper=SecretStr(pepper), environment=_ENVIRONMENT)
        await tenants.create(TENANT, name="Demo")
        return LocalKeys(
            api_key=await _key(tenants, earlier.api_key if earlier else "", _TURNS, label="api"),
            operator_key=await _key(tenants, earlier.operator_key if earlier else "", _OPERATOR, label="operator"),
            site_key=await _site_key(tenants, earlier.site_key if earlier else "", origins),
        )
    finally:
        await engine.dispose()


async def _key(tenants: Tenants, earlier: str, scopes: tuple[Scope, ...], *, label: str) -> str:
    known = await tenants.verify(earlier)
    if known is not None and known.tenant == TENANT and known.scopes == frozenset(scopes):
        return earlier
    return await tenants.create_key(TENANT, scopes=scopes, label=label)


async def _site_key(tenants: Tenants, earlier: str, origins: Collection[str]) -> str:
    known = await tenants.site(earlier)
    if known is not None and known.tenant == TENANT and known.origins == frozenset(origins):
        return earlier
    return await tenants.create_site_key(TENANT, origins=origins)
