"""Which passages of the knowledge base an agent is shown for a turn."""

from infra.postgres.claims import Claim
from schemas.agents import Agent
from schemas.knowledge import Passage
from workers.agents.artefact import artefact


def offered(claim: Claim) -> tuple[Passage, ...]:
    """Return the passages in the order of their numbers, best first.

    The adaptive response agent is shown only what no earlier answer of the conversation was made of.
    """
    found = claim.brief.retrieved.passages
    if claim.agent is Agent.ADAPTIVE_RESPONSE:
        known = {passage for past in claim.past for passage in past.read}
        found = tuple(passage for passage in found if passage.passage_id not in known)
    return found[: artefact(claim.agent).passages]
