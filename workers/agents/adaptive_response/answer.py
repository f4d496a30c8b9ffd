"""The shape of an adaptive answer: something new, cited, or a plain "nothing new"; never the old words again."""

import re
from collections.abc import Iterable
from typing import Final

from infra.postgres.claims import Claim
from schemas.answer_policy import AnswerPolicy
from workers.agents.offered import offered
from workers.agents.written import Schema, Written, shape
from workers.answers.sanitise import to_text

NEW: Final = "adaptive"
NOTHING_NEW: Final = "nothing_new"


def schema(claim: Claim) -> Schema:
    """Return the shape. Without a passage that no earlier answer used there is nothing new to say."""
    passages = len(offered(claim))
    return shape([NEW, NOTHING_NEW] if passages else [NOTHING_NEW], passages=passages)


def problem(claim: Claim, written: Written) -> str | None:
    """Return why an answer is not new."""
    passages = len(offered(claim))
    if written.dimension == NOTHING_NEW:
        return None
    if not passages:
        return "the adaptive response agent claims something new without an unused passage"
    if not written.citations(passages):
        return "the adaptive response agent answers and cites no passage that was not used before"
    return None


def rephrases(claim: Claim, written: Written, policy: AnswerPolicy) -> str | None:
    """Return why the whole text only says again what earlier answers said; None if it does not."""
    if written.text is None or written.dimension == NOTHING_NEW:
        return None
    earlier = [to_text(past.shown_html) for past in claim.past if past.shown_html]
    share = overlap(written.text, earlier, words=policy.overlap_words)
    if share < policy.overlap:
        return None
    return f"the adaptive response agent rephrases earlier answers: they have {share:.0%} of its word runs already"


def overlap(text: str, earlier: Iterable[str], *, words: int) -> float:
    """Return which share of the runs of `words` words in `text` stands in one of the `earlier` texts, 0 to 1."""
    runs = _runs(text, words)
    known = set[tuple[str, ...]]().union(*(_runs(other, words) for other in earlier))
    return len(runs & known) / len(runs) if runs else 0.0


def _runs(text: str, words: int) -> set[tuple[str, ...]]:
    found = re.findall(r"\w+", text.casefold())
    return {tuple(found[at : at + words]) for at in range(len(found) - words + 1)}
