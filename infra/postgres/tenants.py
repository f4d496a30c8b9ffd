"""Tenants, their API keys and the site keys of their web pages.

A key reads `fl_<environment>_<key id>_<secret>`. The secret is 32 random bytes, so one round of SHA-256 with a
pepper is enough, and only that hash is kept.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, cast

from pydantic import SecretStr
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import LedgerUnavailable, row, rows

Scope = Literal["turns", "operator", "installation"]

FRESH_SECONDS: Final = 30.0
"""How long a verified key is believed without asking again; a key revoked elsewhere lives that much longer."""

STALE_SECONDS: Final = 600.0
"""How long a verified key is believed while PostgreSQL does not answer."""

_CACHED_KEYS = 10_000
_KEY = re.compile(r"fl_([a-z]+)_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+")

_CREATE_TENANT: Final = text("""
INSERT INTO tenants (tenant_id, name) VALUES (:tenant, :name)
ON CONFLICT (tenant_id) DO UPDATE SET name = excluded.name
""")
_CREATE_KEY: Final = text("""
INSERT INTO api_keys (key_id, tenant_id, secret_hash, scopes, label, expires_at)
SELECT :key_id, tenant_id, :hash, CAST(:scopes AS text[]), :label, CAST(:expires_at AS timestamptz)
FROM tenants WHERE tenant_id = :tenant
RETURNING key_id
""")
_FIND_KEY: Final = text("""
SELECT tenant_id, secret_hash, scopes, expires_at FROM api_keys
WHERE key_id = :key_id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
""")
_REVOKE_KEY: Final = text("""
UPDATE api_keys SET revoked_at = clock_timestamp() WHERE key_id = :key_id AND revoked_at IS NULL RETURNING key_id
""")
_CREATE_SITE: Final = text("""
INSERT INTO site_keys (site_key, tenant_id, origins)
SELECT :site_key, tenant_id, CAST(:origins AS text[]) FROM tenants WHERE tenant_id = :tenant
RETURNING site_key
""")
_FIND_SITE: Final = text("""
SELECT tenant_id, origins FROM site_keys WHERE site_key = :site_key AND revoked_at IS NULL
""")


class UnknownTenant(Exception):
    """There is no such tenant. Create it first."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What a verified key may do, and for whom."""

    key_id: str
    tenant: str
    scopes: frozenset[Scope]
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A web page's public key: the tenant, and the origins that may ask for a visitor's token."""

    tenant: str
    origins: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Verified:
    key: ApiKey
    at: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        return time.monotonic() - self.at

    @property
    def expired(self) -> bool:
        return self.key.expires_at is not None and self.key.expires_at <= datetime.now(UTC)


class Tenants:
    """Creating and checking who may come in."""

    def __init__(self, engine: AsyncEngine, *, pepper: SecretStr, environment: str = "live") -> None:
        self._engine = engine
        self._pepper = pepper
        self._environment = environment
        self._cache: OrderedDict[bytes, _Verified] = OrderedDict()

    async def create(self, tenant: str, *, name: str) -> None:
        """Create a tenant; for one that exists, change its name."""
        await rows(self._engine, _CREATE_TENANT, {"tenant": tenant, "name": name})

    async def create_key(
        self,
        tenant: str,
        *,
        scopes: Collection[Scope] = ("turns",),
        label: str = "",
        expires_at: datetime | None = None,
    ) -> str:
        """Return a new key. It cannot be read again later.

        Raises:
            UnknownTenant: there is no such tenant.
        """
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        values = {
            "key_id": key_id,
            "tenant": tenant,
            "hash": self._hash(secret),
            "scopes": sorted(scopes),
            "label": label,
            "expires_at": expires_at,
        }
        if await row(self._engine, _CREATE_KEY, values) is None:
            raise UnknownTenant(f"there is no tenant '{tenant}'; create it first")
        return f"fl_{self._environment}_{key_id}_{secret}"

    async def verify(self, key: str) -> ApiKey | None:
        """Return what `key` may do; None when it is unknown, expired, revoked or not a key at all.

        Raises:
            LedgerUnavailable: PostgreSQL does not answer and this process has not seen the key lately.
        """
        parts = _KEY.fullmatch(key)
        if parts is None:
            return None
        digest = hashlib.sha256(key.encode()).digest()
        cached = self._cache.get(digest)
        if cached is not None and not cached.expired and cached.age < FRESH_SECONDS:
            return cached.key
        try:
            found = await row(self._engine, _FIND_KEY, {"key_id": parts[2]})
        except LedgerUnavailable:
            if cached is not None and not cached.expired and cached.age < STALE_SECONDS:
                return cached.key
            raise
        return self._judge(digest, parts[2], parts[3], found)

    async def revoke(self, key_id: str) -> bool:
        """End a key. False when there was none to end. Other processes notice within `FRESH_SECONDS`."""
        for digest in [d for d, verified in self._cache.items() if verified.key.key_id == key_id]:
            del self._cache[digest]
        return await row(self._engine, _REVOKE_KEY, {"key_id": key_id}) is not None

    async def create_site_key(self, tenant: str, *, origins: Collection[str]) -> str:
        """Return a public key for web pages at exactly these origins, such as `https://www.example.com`.

        Raises:
            UnknownTenant: there is no such tenant.
            ValueError: one of the origins is not an origin.
        """
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"'{origin}' is not an origin; write scheme://host[:port], nothing after it")
        site_key = "site_" + secrets.token_hex(12)
        values = {"site_key": site_key, "tenant": tenant, "origins": sorted(origins)}
        if await row(self._engine, _CREATE_SITE, values) is None:
            raise UnknownTenant(f"there is no tenant '{tenant}'; create it first")
        return site_key

    async def site(self, site_key: str) -> Site | None:
        """Return the page that `site_key` belongs to."""
        found = await row(self._engine, _FIND_SITE, {"site_key": site_key})
        if found is None:
            return None
        return Site(tenant=found["tenant_id"], origins=frozenset(cast("list[str]", found["origins"])))

    def _judge(self, digest: bytes, key_id: str, secret: str, found: RowMapping | None) -> ApiKey | None:
        # Compared even when there is no such key, so that both take the same time.
        expected = bytes(found["secret_hash"]) if found is not None else bytes(32)
        if not hmac.compare_digest(self._hash(secret), expected) or found is None:
            self._cache.pop(digest, None)
            return None
        key = ApiKey(
            key_id=key_id,
            tenant=found["tenant_id"],
            scopes=frozenset(cast("list[Scope]", found["scopes"])),
            expires_at=found["expires_at"],
        )
        self._cache[digest] = _Verified(key)
        self._cache.move_to_end(digest)
        if len(self._cache) > _CACHED_KEYS:
            self._cache.popitem(last=False)
        return key

    def _hash(self, secret: str) -> bytes:
        return hashlib.sha256(f"{secret}{self._pepper.get_secret_value()}".encode()).digest()
