"""The shape of a support answer: from the knowledge base and cited, or a plain "not found"."""

from typing import Final

from infra.postgres.claims import Claim
from workers.agents.offered import offered
from workers.agents.written import Schema, Written, shape

FOUND: Final = "support"
NOT_FOUND: Final = "not_found"


def schema(claim: Claim) -> Schema:
    """Return the shape. Where the knowledge base has no answer, none may be given."""
    passages = len(offered(claim)) if answerable(claim) else 0
    return shape([FOUND, NOT_FOUND] if passages else [NOT_FOUND], passages=passages)


def problem(claim: Claim, written: Written) -> str | None:
    """Return why an answer is not covered by what it cites."""
    passages = len(offered(claim)) if answerable(claim) else 0
    if written.dimension == NOT_FOUND:
        return None
    if not passages:
        return "the support agent answers although the knowledge base has no answer"
    if not written.citations(passages):
        return "the support agent answers and cites no passage of the knowledge base"
    return None


def answerable(claim: Claim) -> bool:
    """Tell whether the knowledge base was read in time and probably holds an answer."""
    return claim.brief.retrieved.state == "found" and claim.brief.retrieved.answerable
