"""Errors as a person at the edge reads them: RFC 9457 problem details."""

from pydantic import BaseModel, ConfigDict

PROBLEM_CONTENT_TYPE = "application/problem+json"


class Problem(BaseModel):
    """What went wrong and what to do about it."""

    model_config = ConfigDict(extra="allow")

    type: str
    """A stable URI reference: `/problems/<code>`."""
    title: str
    status: int
    detail: str
    code: str
    """The stable code, for machines: the last part of `type`."""
