"""The shape of a technical answer: what it is made of, with the passages it combines."""

from typing import Final

from infra.postgres.claims import Claim
from workers.agents.offered import offered
from workers.agents.written import Schema, Written, shape

KNOWN: Final = "technical"
NOT_FOUND: Final = "not_found"


def schema(claim: Claim) -> Schema:
    """Return the shape. Without passages the agent says that it does not know."""
    passages = len(offered(claim))
    return shape([KNOWN, NOT_FOUND] if passages else [NOT_FOUND], passages=passages)


def problem(claim: Claim, written: Written) -> str | None:
    """Return why an answer claims more than it was given."""
    passages = len(offered(claim))
    if written.dimension == NOT_FOUND:
        return None
    if not passages:
        return "the technical consultant answers without any passage of the knowledge base"
    if not written.citations(passages):
        return "the technical consultant answers and cites no passage of the knowledge base"
    return None
