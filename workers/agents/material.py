"""The turn as the provider without a model gets it: typed, so that no prompt has to be read."""

from collections.abc import Sequence

from infra.postgres.claims import Claim
from schemas.knowledge import Passage
from schemas.materials import Material
from workers.answers.sanitise import to_text


def material_of(claim: Claim, passages: Sequence[Passage]) -> Material:
    """Return what an answer without a model is made of; `passages` are those that a model would be shown."""
    return Material(
        agent=claim.agent,
        text=claim.text,
        brief=claim.brief,
        passages=tuple(passages),
        asked=tuple(past.dimension for past in claim.past if past.dimension),
        told=tuple(to_text(past.shown_html) for past in claim.past if past.shown_html),
    )
