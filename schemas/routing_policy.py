"""How turns are routed: who decides, within which time, how sure it must be, in which languages."""

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

RouterName: TypeAlias = Literal["frontier", "cascade", "classifier", "rules"]

LanguageCode: TypeAlias = Annotated[str, Field(pattern=r"^[a-z]{2}$")]

_LONGEST: Final = 10.0
"""Seconds. Preparation has a lease to end within, and the turn's own clock runs already."""


class RoutingPolicy(BaseModel):
    """The section `routing` of the policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    router: RouterName = "frontier"
    """Who decides. Where the frontier is not there or fails, the classifier decides, and behind it the rules."""
    model: str | None = None
    """The policy's model that the frontier router asks; absent, the first one whose backend is the frontier."""
    deadline: float = Field(default=2.5, gt=0, le=_LONGEST)
    """Seconds for routing and retrieval together; they run beside each other."""
    sure: float = Field(default=0.7, ge=0, le=1)
    """From this confidence on the cascade takes the classifier's word, and asks the frontier below it."""
    unsure: float = Field(default=0.4, ge=0, le=1)
    """Below this confidence of any router the default agent answers: what a visitor needs is not known then."""
    failures: int = Field(default=3, ge=1)
    """Failures of the frontier router in a row after which it is skipped."""
    pause: float = Field(default=30, gt=0)
    """Seconds it is skipped for; then one turn tries it again."""
    languages: tuple[LanguageCode, ...] = Field(default=("en", "de", "fr", "es", "it", "nl", "pt"), min_length=1)
    """What visitors write in. The first one is assumed where nothing shows which it is."""
    clear: float = Field(default=0.75, ge=0, le=1)
    """From this probability on a message's own language is believed against that of the conversation so far."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.unsure > self.sure:
            raise ValueError("thresholds must nest: unsure <= sure")
        if len(set(self.languages)) < len(self.languages):
            raise ValueError("a language is named twice")
        return self
