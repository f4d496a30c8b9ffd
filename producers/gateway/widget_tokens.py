"""Short-lived tokens for visitors of a web page.

A page knows only its public site key. The token it gets for it is bound to one conversation and to the origin of
the page. A conversation is the visitor's own: either its id was made here (unguessable, and marked so that we
know it again), or nobody has used it yet, or the page shows the token it had for it before.
"""

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Annotated, Final, cast

import jwt
from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.requests import Request

from infra.postgres.views import load_transcript
from producers.gateway.documents import error_responses
from producers.gateway.parts import Parts, PartsOf
from producers.gateway.problems import ProblemError, forbidden
from producers.gateway.strict_json import StrictJsonRoute
from schemas.ids import ConversationId

AUDIENCE: Final = "widget"
MIN_SECRET_BYTES: Final = 32
RENEWAL_SECONDS: Final = 86_400
"""How long after its end a token still proves whose conversation it was."""

_ALGORITHM: Final = "HS256"
_REQUIRED: Final = ["aud", "exp", "iat", "jti", "tenant", "conversation", "origin"]

router = APIRouter(tags=["widget"], route_class=StrictJsonRoute)


class TokenExpired(Exception):
    """The token was ours but its time is over. Ask for another one."""


class TokenInvalid(Exception):
    """This is not one of our tokens."""


@dataclass(frozen=True, slots=True)
class VisitorClaims:
    """What a token says."""

    tenant: str
    conversation: str
    origin: str
    expires_at: float
    """Unix seconds."""


class WidgetTokens:
    """Signs and reads tokens with one secret and one algorithm."""

    def __init__(self, secret: SecretStr, *, seconds: int) -> None:
        self._secret = secret.get_secret_value().encode()
        self.seconds: int = seconds

    @property
    def enabled(self) -> bool:
        """Whether there is a secret to sign with."""
        return len(self._secret) >= MIN_SECRET_BYTES

    def issue(self, *, tenant: str, conversation: str, origin: str) -> str:
        """Return a token for one conversation at one origin."""
        now = int(time.time())
        claims = {
            "aud": AUDIENCE,
            "tenant": tenant,
            "conversation": conversation,
            "origin": origin,
            "iat": now,
            "exp": now + self.seconds,
            "jti": secrets.token_urlsafe(12),
        }
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def read(self, token: str, *, leeway: float = 0) -> VisitorClaims:
        """Return what a token of ours says.

        Raises:
            TokenExpired: its time is over.
            TokenInvalid: it is not ours, or was tampered with.
        """
        if not self.enabled:
            raise TokenInvalid("widget tokens are not enabled here")
        try:
            claims = cast(
                "dict[str, str | float]",
                jwt.decode(
                    token,
                    self._secret,
                    algorithms=[_ALGORITHM],
                    audience=AUDIENCE,
                    leeway=leeway,
                    options={"require": _REQUIRED},
                ),
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenExpired("the token's time is over; ask for another one") from error
        except jwt.InvalidTokenError as error:
            raise TokenInvalid("the token is not one of ours") from error
        return VisitorClaims(
            tenant=str(claims["tenant"]),
            conversation=str(claims["conversation"]),
            origin=str(claims["origin"]),
            expires_at=float(claims["exp"]),
        )

    def new_conversation(self, tenant: str) -> str:
        """Return an id nobody can guess, marked as made here."""
        name = secrets.token_hex(16)
        return f"web-{name}-{self._mark(tenant, name)}"

    def made_here(self, tenant: str, conversation: str) -> bool:
        """Tell whether `new_conversation` made this id for this tenant."""
        parts = conversation.split("-")
        if len(parts) != 3 or parts[0] != "web":
            return False
        return hmac.compare_digest(self._mark(tenant, parts[1]).encode(), parts[2].encode())

    def _mark(self, tenant: str, name: str) -> str:
        digest = hmac.new(self._secret, f"conversation\x1f{tenant}\x1f{name}".encode(), hashlib.sha256).digest()
        return base64.b32encode(digest[:10]).decode().lower()


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
