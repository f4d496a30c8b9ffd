"""Who did what. Append-only: a trigger refuses to change or remove a row."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import rows

_RECORD = text("""
INSERT INTO operator_audit (tenant_id, operator, verb, subject, detail)
VALUES (CAST(:tenant AS text), :operator, :verb, :subject, CAST(:detail AS jsonb))
""")

AUDITED: Final = """
audited AS (
    INSERT INTO operator_audit (tenant_id, operator, verb, subject, detail)
    SELECT CAST(:tenant AS text), :operator, CAST(:verb AS text), {subject}, {detail} FROM {what}
)
"""
"""A part of a statement that does what it records: its subject and detail come from the rows of `what`."""

_LIST = text("""
SELECT audit_id, at, tenant_id, operator, verb, subject, detail FROM operator_audit
WHERE tenant_id = :tenant AND audit_id < :before AND (CAST(:subject AS text) IS NULL OR subject = :subject)
ORDER BY audit_id DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class Audited:
    """One row of the audit."""

    audit_id: int
    at: datetime
    tenant_id: str | None
    operator: str
    """The key's id."""
    verb: str
    subject: str
    detail: dict[str, object]


async def record(
    engine: AsyncEngine,
    *,
    tenant: str | None,
    operator: str,
    verb: str,
    subject: str,
    detail: Mapping[str, object],
) -> None:
    """Write down what an operator does, before it takes effect.

    Raises:
        LedgerUnavailable: it is not written down; do not do it.
    """
    values = {"tenant": tenant, "operator": operator, "verb": verb, "subject": subject, "detail": json.dumps(detail)}
    await rows(engine, _RECORD, values)


async def load_audit(
    engine: AsyncEngine, *, tenant: str, subject: str | None, before: int, limit: int
) -> list[Audited]:
    """Return a tenant's rows older than `before`, newest first; of one subject if one is named."""
    values = {"tenant": tenant, "subject": subject, "before": before, "limit": limit}
    return [Audited(**dict(found)) for found in await rows(engine, _LIST, values)]
