"""Short-lived tokens for visitors of a web page.

A page knows only its public site key. The token it gets for it is bound to one conversation and to the origin of
the page. A conversation is the visitor's own: either its id was made here (unguessable, and marked so that we
know it again), or nobody has used it yet, or the page shows the token it had for it before.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from infra.postgres.views import load_transcript
from producers.gateway.auth import check_unreserved
from producers.gateway.documents import error_responses
from producers.gateway.parts import Parts, PartsOf
from producers.gateway.problems import ProblemError, forbidden
from producers.gateway.strict_json import StrictJsonRoute
from producers.gateway.tokens import TokenExpired, TokenInvalid, WidgetTokens
from schemas.ids import ConversationId

RENEWAL_SECONDS: Final = 86_400
"""How long after its end a token still proves whose conversation it was."""

router = APIRouter(tags=["widget"], route_class=StrictJsonRoute)


class TokenRequest(BaseModel):
    """A page asks for a visitor's token."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"site_key": "site_0123456789abcdef01234567"}]}
    )

    site_key: Annotated[str, Field(pattern=r"^site_[0-9a-f]{24}$")]
    conversation_id: ConversationId | None = None
    """An earlier conversation of this visitor, to go on with."""


class TokenResponse(BaseModel):
    """The token and what it is bound to."""

    token: str
    token_type: str = "Bearer"  # noqa: S105  (the scheme's name)
    expires_in: int
    """Seconds."""
    conversation_id: str


@router.post(
    "/v1/widget/tokens",
    operation_id="createWidgetToken",
    summary="Get a visitor's token for one conversation",
    responses=error_responses(400, 403, 413, 422, 429, 503),
)
async def create_widget_token(
    body: TokenRequest,
    request: Request,
    parts: PartsOf,
    origin: Annotated[str | None, Header(max_length=255, description="Set by browsers.")] = None,
) -> TokenResponse:
    """Exchange a page's site key for a token; the page's origin must be one the tenant listed, exactly."""
    if not parts.tokens.enabled:
        raise forbidden("widget_disabled", "This installation issues no widget tokens: it has no signing secret.")
    site = await parts.tenants.site(body.site_key)
    if site is None or origin is None or origin not in site.origins:
        raise forbidden("origin_not_allowed", "The site key is unknown, or this page's origin is not on its list.")
    wait = parts.token_limit.take(f"{body.site_key}\x1f{request.client.host if request.client else ''}")
    if wait:
        raise ProblemError(
            429,
            "rate_limited",
            "Too many tokens",
            "Wait before asking for another token.",
            headers={"Retry-After": str(int(wait) + 1)},
        )
    conversation = body.conversation_id or parts.tokens.new_conversation(site.tenant)
    if body.conversation_id is not None:
        check_unreserved(body.conversation_id)
        await _check_own(parts, site.tenant, body.conversation_id, request.headers.get("authorization"))
    token = parts.tokens.issue(tenant=site.tenant, conversation=conversation, origin=origin)
    return TokenResponse(token=token, expires_in=parts.tokens.seconds, conversation_id=conversation)


async def _check_own(parts: Parts, tenant: str, conversation: str, authorization: str | None) -> None:
    """Refuse a conversation that may be somebody else's: otherwise its id alone would open its transcript."""
    if parts.tokens.made_here(tenant, conversation) or _shown(parts.tokens, tenant, conversation, authorization):
        return
    if await load_transcript(parts.engine, tenant=tenant, conversation=conversation, limit=1) is not None:
        raise forbidden(
            "conversation_not_yours",
            "This conversation exists already. Send its earlier token as Authorization, or start a new one.",
        )


def _shown(tokens: WidgetTokens, tenant: str, conversation: str, authorization: str | None) -> bool:
    try:
        claims = tokens.read((authorization or "").removeprefix("Bearer "), leeway=RENEWAL_SECONDS)
    except (TokenExpired, TokenInvalid):
        return False
    return claims.tenant == tenant and claims.conversation == conversation
