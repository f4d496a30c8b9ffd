"""Tokens for visitors: signed here, read here, bound to one conversation and one origin."""

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Final, cast

import jwt
from pydantic import SecretStr

AUDIENCE: Final = "widget"
MIN_SECRET_BYTES: Final = 32

_ALGORITHM: Final = "HS256"
_REQUIRED: Final = ["aud", "exp", "iat", "jti", "tenant", "conversation", "origin"]


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
