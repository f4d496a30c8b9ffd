"""Who asks, and what they may do: a tenant's API key, or a visitor's widget token."""

import time
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from producers.gateway.parts import Parts, PartsOf
from producers.gateway.problems import ProblemError, forbidden, unauthenticated
from producers.gateway.tokens import TokenExpired, TokenInvalid
from schemas.replays import REPLAY_PREFIX, reserved

_READING: Final = frozenset({"GET", "HEAD"})

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="An API key (`fl_…`) or a widget token.",
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    tenant: str
    scopes: frozenset[str]
    conversation: str | None = None
    """The only conversation a visitor may touch; None for a tenant's key."""
    expires_at: float | None = None
    """Unix seconds; None for a key without end."""
    key_id: str | None = None
    """Id of the tenant's key, by which what it did is known later; None for a visitor."""

    @property
    def visitor(self) -> str | None:
        """Name of the visitor, for limits of their own; None for a tenant's key."""
        return self.conversation

    @property
    def operator(self) -> bool:
        """Whether ledgers and timings may be shown."""
        return "operator" in self.scopes

    @property
    def expired(self) -> bool:
        """Whether the credential's time is over."""
        return self.expires_at is not None and self.expires_at <= time.time()

    def may_touch(self, tenant: str, conversation: str) -> bool:
        """Tell whether a conversation is this principal's."""
        if reserved(conversation) and not self.operator:
            return False
        return self.tenant == tenant and self.conversation in (None, conversation)

    def key_for(self, key: str) -> str:
        """Return an idempotency key as the tenant's table has it: visitors cannot meet in each other's keys."""
        return key if self.conversation is None else f"visitor:{self.conversation}:{key}"


async def identify(parts: Parts, credential: str, *, origin: str | None, same_origin: bool) -> Principal:
    """Return who shows this credential.

    Args:
        parts: the gateway's parts.
        credential: an API key or a widget token.
        origin: the request's `Origin`, if it has one.
        same_origin: whether a missing origin is fine, as for a page's requests to its own server.

    Raises:
        ProblemError: 401 when it is not valid (any more), 403 when it is used from another page.
        LedgerUnavailable: the key cannot be checked now.
    """
    if credential.startswith("fl_"):
        key = await parts.tenants.verify(credential)
        if key is None:
            raise unauthenticated("The API key is unknown, expired or revoked.")
        until = key.expires_at.timestamp() if key.expires_at else None
        return Principal(key.tenant, key.scopes, expires_at=until, key_id=key.key_id)
    try:
        claims = parts.tokens.read(credential)
    except TokenExpired as error:
        raise unauthenticated("The token's time is over; ask /v1/widget/tokens for another one.") from error
    except TokenInvalid as error:
        raise unauthenticated("The credential is neither an API key nor a token of ours.") from error
    if origin != claims.origin and not (origin is None and same_origin):
        raise forbidden("origin_mismatch", "The token was issued to a page at another origin.")
    return Principal(claims.tenant, frozenset({"turns"}), claims.conversation, claims.expires_at)


async def authenticated(
    request: Request,
    parts: PartsOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Principal:
    """Return who asks, or refuse."""
    if credentials is None:
        raise unauthenticated("Send an API key or a widget token as `Authorization: Bearer …`.")
    return await identify(
        parts,
        credentials.credentials,
        origin=request.headers.get("origin"),
        same_origin=request.method in _READING,
    )


async def may_submit(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """Return who asks if they may submit and watch turns."""
    if "turns" not in principal.scopes:
        raise _lacking("turns")
    return principal


async def may_operate(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """Return who asks if they are an operator."""
    if not principal.operator:
        raise _lacking("operator")
    return principal


async def may_run_the_installation(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """Return who asks if they may change what concerns every tenant."""
    if "installation" not in principal.scopes:
        raise _lacking("installation")
    return principal


def check_conversation(principal: Principal, conversation: str) -> None:
    """Refuse a visitor any conversation but their own, and everybody those of replays.

    Raises:
        ProblemError: 403.
    """
    check_unreserved(conversation)
    if not principal.may_touch(principal.tenant, conversation):
        raise forbidden("conversation_not_yours", "The token is bound to another conversation.")


def check_unreserved(conversation: str) -> None:
    """Refuse a conversation that only replays may have.

    Raises:
        ProblemError: 403.
    """
    if reserved(conversation):
        raise forbidden(
            "conversation_reserved",
            f"Conversations named '{REPLAY_PREFIX}…' are kept for replays; choose another name.",
        )


def _lacking(scope: str) -> ProblemError:
    return forbidden("scope_missing", f"The key lacks the scope '{scope}'.")


Authenticated = Annotated[Principal, Depends(authenticated)]
Submitter = Annotated[Principal, Depends(may_submit)]
Operator = Annotated[Principal, Depends(may_operate)]
InstallationOperator = Annotated[Principal, Depends(may_run_the_installation)]
