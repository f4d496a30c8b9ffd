"""Other ways to ask the knowledge base what was asked before."""

from infra.postgres.claims import Claim


def angles(claim: Claim, *, most: int) -> tuple[str, ...]:
    """Return searches that may find what no earlier answer used: the question beside what else is known.

    First with what is known of the buyer, the latest first, for that is what an answer may not have regarded yet; then
    with the other things that were asked in the conversation.
    """
    besides = [fact.value for fact in sorted(claim.brief.facts, key=lambda fact: -fact.seq)]
    besides += [past.asked for past in reversed(claim.past) if past.asked.strip() != claim.text.strip()]
    return tuple(f"{claim.text} {beside}" for beside in list(dict.fromkeys(besides))[:most])
