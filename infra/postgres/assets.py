"""Files that agents made for their answers, and how many images a tenant has asked for today.

An asset belongs to its turn and goes with it. Whoever knows its id may read it: the id is its only key.
"""

import hashlib
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import row
from schemas.assets import MediaType, new_asset_id
from schemas.ids import TurnId

# The same bytes for the same turn are the same asset, however often the turn is answered.
_KEEP = text("""
INSERT INTO assets (asset_id, turn_id, tenant_id, conversation_id, media_type, sha256, content)
SELECT :asset_id, turn_id, tenant_id, conversation_id, :media_type, :sha256, :content
FROM turns WHERE turn_id = CAST(:turn_id AS uuid)
ON CONFLICT (turn_id, sha256, media_type) DO UPDATE SET sha256 = excluded.sha256
RETURNING asset_id
""")

_LOAD = text("SELECT media_type, sha256, content FROM assets WHERE asset_id = :asset_id")

_RESERVE = text("""
WITH old AS (
    DELETE FROM image_days
    WHERE tenant_id = :tenant AND day < (statement_timestamp() AT TIME ZONE 'UTC')::date - 30
)
INSERT INTO image_days AS d (tenant_id, day, asked)
VALUES (:tenant, (statement_timestamp() AT TIME ZONE 'UTC')::date, 1)
ON CONFLICT (tenant_id, day) DO UPDATE SET asked = d.asked + 1 WHERE d.asked < :most
RETURNING asked
""")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: its type, its bytes and their SHA-256."""

    media_type: MediaType
    sha256: bytes
    content: bytes


class Assets:
    """The table of assets. Every method raises `LedgerUnavailable` when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def keep(self, turn_id: TurnId, media_type: MediaType, content: bytes) -> str | None:
        """Store a file for a turn and return its id; that of the first, where the turn has the same file already.

        None: the turn is not there any more.
        """
        values = {
            "asset_id": new_asset_id(),
            "turn_id": turn_id,
            "media_type": media_type,
            "sha256": hashlib.sha256(content).digest(),
            "content": content,
        }
        kept = await row(self._engine, _KEEP, values)
        return None if kept is None else str(kept["asset_id"])

    async def load(self, asset_id: str) -> Asset | None:
        """Return the file with this id; None if there is none."""
        found = await row(self._engine, _LOAD, {"asset_id": asset_id})
        if found is None:
            return None
        return Asset(MediaType(found["media_type"]), found["sha256"], found["content"])

    async def reserve_image(self, tenant: str, *, most: int) -> bool:
        """Count one image that is about to be asked for. False: the tenant has had its `most` of this day (UTC)."""
        return await row(self._engine, _RESERVE, {"tenant": tenant, "most": most}) is not None
