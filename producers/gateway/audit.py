"""What operators did, for operators."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, JsonValue

from infra.postgres.audit import load_audit
from producers.gateway.auth import Operator
from producers.gateway.documents import error_responses
from producers.gateway.operators import Limit
from producers.gateway.parts import PartsOf
from producers.gateway.strict_json import StrictJsonRoute

router = APIRouter(tags=["operations"], route_class=StrictJsonRoute)

_LATEST: Final = 2**62


class AuditRow(BaseModel):
    """One thing an operator did."""

    model_config = ConfigDict(from_attributes=True)

    audit_id: int
    at: datetime
    operator: str
    """The id of the operator's key."""
    verb: str
    subject: str
    """What it was done to: an id, or `dead_letters` for many."""
    detail: dict[str, JsonValue]


class AuditPage(BaseModel):
    """Rows of the audit, latest first."""

    rows: list[AuditRow]
    next: int | None
    """`before` of the next page; null on the last one."""


@router.get(
    "/v1/audit",
    operation_id="listAudit",
    summary="List what operators did",
    responses=error_responses(401, 403, 422, 503),
)
async def list_audit(
    principal: Operator,
    parts: PartsOf,
    subject: Annotated[
        str | None, Query(pattern=r"^[a-zA-Z0-9_.:-]{1,200}$", description="Only what was done to it.")
    ] = None,
    before: Annotated[int, Query(ge=1, le=_LATEST, description="`next` of the page before this one.")] = _LATEST,
    limit: Limit = 50,
) -> AuditPage:
    """Return the tenant's rows of the audit, latest first. No row is ever changed or removed."""
    found = await load_audit(
        parts.engine,
        tenant=principal.tenant,
        installation="installation" in principal.scopes,
        subject=subject,
        before=before,
        limit=limit,
    )
    return AuditPage(
        rows=[AuditRow.model_validate(row) for row in found], next=found[-1].audit_id if len(found) == limit else None
    )
