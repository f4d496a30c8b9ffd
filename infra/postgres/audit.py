"""What operators did, kept for good: the table refuses to change or remove a row."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.statements import rows

AUDIT_SQL: Final = """
INSERT INTO operator_audit (tenant_id, operator, verb, subject, detail)
VALUES (CAST(:audit_tenant AS text), :audit_operator, :audit_verb, :audit_subject, CAST(:audit_detail AS jsonb))
"""
"""For a part of the statement that does what it tells, with `audit_values`: neither is there without the other."""

_RECORD = text(AUDIT_SQL)


def audit_values(
    *, tenant: str | None, operator: str, verb: str, subject: str, detail: Mapping[str, object]
) -> dict[str, object]:
    """Return the parameters of `AUDIT_SQL`.

    Args:
        tenant: whose data it was about; None for the whole installation.
        operator: id of the key that asked.
        verb: what was done, `noun.verb`.
        subject: to what: an id or a name.
        detail: what else must be known later, as JSON; never text of visitors.
    """
    return {
        "audit_tenant": tenant,
        "audit_operator": operator,
        "audit_verb": verb,
        "audit_subject": subject,
        "audit_detail": json.dumps(detail),
    }


AUDITED: Final = """
audited AS (
    INSERT INTO operator_audit (tenant_id, operator, verb, subject, detail)
    SELECT CAST(:tenant AS text), :operator, CAST(:verb AS text), {subject}, {detail} FROM {what}
)
"""
"""A part of a statement that does what it records: its subject and detail come from the rows of `what`."""

_LIST = text("""
SELECT audit_id, at, tenant_id, operator, verb, subject, detail FROM operator_audit
WHERE (tenant_id = :tenant OR (:installation AND tenant_id IS NULL))
  AND audit_id < :before AND (CAST(:subject AS text) IS NULL OR subject = :subject)
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
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write down what an operator did; for the arguments see `audit_values`.

    Raises:
        LedgerUnavailable: it is not written down, so do not do it.
    """
    values = audit_values(tenant=tenant, operator=operator, verb=verb, subject=subject, detail=detail or {})
    await rows(engine, _RECORD, values)


async def load_audit(
    engine: AsyncEngine, *, tenant: str, installation: bool, subject: str | None, before: int, limit: int
) -> list[Audited]:
    """Return a tenant's rows older than `before`, newest first; of one subject if one is named.

    With `installation` also those that belong to no tenant.
    """
    values = {"tenant": tenant, "installation": installation, "subject": subject, "before": before, "limit": limit}
    return [Audited(**dict(found)) for found in await rows(engine, _LIST, values)]
