"""Files that agents make for their answers: of which types, how large, under which address."""

import secrets
from enum import StrEnum
from typing import Final


class MediaType(StrEnum):
    """The only types that are stored and served."""

    SVG = "image/svg+xml"
    PNG = "image/png"
    JPEG = "image/jpeg"
    WEBP = "image/webp"
    MERMAID = "text/plain"
    """Mermaid source has a type of its own, which browsers do not show."""

    @property
    def suffix(self) -> str:
        """Return how a file of this type ends, with the dot."""
        return _SUFFIXES[self]


_SUFFIXES: Final = {
    MediaType.SVG: ".svg",
    MediaType.PNG: ".png",
    MediaType.JPEG: ".jpg",
    MediaType.WEBP: ".webp",
    MediaType.MERMAID: ".mmd",
}

MAX_ASSET_BYTES: Final = 1_048_576

ASSET_PATTERN: Final = r"^[A-Za-z0-9_-]{32}$"


def new_asset_id() -> str:
    """Return an id that nobody guesses (192 bits): knowing it is what lets somebody read the asset."""
    return secrets.token_urlsafe(24)


def asset_path(asset_id: str) -> str:
    """Return where the gateway serves an asset, relative to its base address."""
    return f"/v1/assets/{asset_id}"
