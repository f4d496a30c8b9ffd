"""The policy's section on what agents may make beside their words."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImagePolicy(_Frozen):
    """One image for each diagram, by a model behind the images API of the frontier's server."""

    model: str = Field(min_length=1, max_length=120)
    size: str = Field(default="1024x1024", pattern=r"^([1-9]\d{1,3}x[1-9]\d{1,3}|auto)$")
    response_format: Literal["b64_json"] | None = None
    """For servers that answer with an address unless asked for bytes; the `gpt-image` models refuse the word."""
    seconds: float = Field(default=30, gt=0, le=60)
    """How long the visitor's turn waits for it, after all its text was shown."""
    per_day: int = Field(default=50, ge=1)
    """Images asked for by one tenant in one day (UTC), made or not."""


class AssetPolicy(_Frozen):
    """What the content generator's answers may link to."""

    diagrams: bool = True
    """Draw the diagrams it describes. No model takes part."""
    seconds: float = Field(default=3, gt=0, le=30)
    """To draw and to store them, after all text was shown; past that the answer ends without the link."""
    image: ImagePolicy | None = None
    """Without a model there are no images."""
