"""What no model decides: which links an answer may have, what is redacted, what an agent may not promise."""

import re
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"

Host: TypeAlias = Annotated[
    str, Field(max_length=253, pattern=rf"^(?:\*\.{_LABEL}\.|{_LABEL}\.)(?:{_LABEL}\.)*[a-z][a-z0-9-]*[a-z0-9]$")
]
"""A host's name in small ASCII letters, without a port: `docs.example.com`, or `*.example.com` for all below it."""


def _compiles(pattern: str) -> str:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    if compiled.search("") is not None:
        raise ValueError("finds something in an empty text, so it would be found everywhere")
    return pattern


Pattern: TypeAlias = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_compiles)]
"""A regular expression of Python that needs at least one character."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Commitment(StrEnum):
    """What an agent may not say by itself."""

    DISCOUNT = "discount"
    PRICE = "price"
    DELIVERY_DATE = "delivery_date"
    LEGAL = "legal"
    INVOICE = "invoice"


class LinkPolicy(_Frozen):
    """Where a link in an answer may lead. Everything else stays as text."""

    hosts: tuple[Host, ...] = ()
    """Of the installation; `*.example.com` for all below it, not for itself. No `www.` is added."""
    passages: bool = True
    """Whether the hosts of the passages that were found for a turn are allowed in its answer too."""


class RedactionPolicy(_Frozen):
    """What is replaced in logs, traces and training data, beside what is built in."""

    keep: tuple[Literal["address", "email", "ip", "name", "national_id", "phone", "private_ip"], ...] = ()
    """Kinds that are left as they are. Secrets, cards and accounts cannot be left."""
    patterns: dict[Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,29}$")], Pattern] = {}
    """What else is replaced: by the kind's name, which is its placeholder too."""


class CommitmentPolicy(_Frozen):
    """What agents may not promise, beside the wording that is built in."""

    prohibited: tuple[Commitment, ...] = tuple(Commitment)
    phrases: dict[Commitment, tuple[Pattern, ...]] = {}
    """More wording, in any language, without regard to case."""


class AbusePolicy(_Frozen):
    """When a message counts as spam or abuse, beside the wording that is built in."""

    links: int = Field(default=3, ge=0)
    """So many links in one message are not yet a flood."""
    phrases: dict[Literal["abuse", "spam", "injection"], tuple[Pattern, ...]] = {}
    """More wording, in any language, without regard to case."""
    refuse: tuple[Literal["abuse", "spam", "injection"], ...] = ("spam",)
    """What no model is asked about: its visitor is told so, and the turn ends `rejected`."""


class GuardrailPolicy(_Frozen):
    """The guardrails of an installation; each section is in force from the start of a process."""

    version: int = Field(default=1, ge=1)
    links: LinkPolicy = LinkPolicy()
    redaction: RedactionPolicy = RedactionPolicy()
    commitments: CommitmentPolicy = CommitmentPolicy()
    abuse: AbusePolicy = AbusePolicy()
