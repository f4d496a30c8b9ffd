"""What operators did, kept for good: the table refuses to change or remove a row."""

import json
from collections.abc import Mapping
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
