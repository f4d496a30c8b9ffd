"""A question that is asked again: by its words, and by visitors who say so."""

from typing import Final

from infra.postgres.inbox import Prepared
from workers.orchestrator.finding import MAX_READ
from workers.orchestrator.words import pattern, significant

ALIKE: Final = 0.8
"""Share of common words from which two questions count as the same."""

_FEWEST: Final = 3
"""Words below which two messages are alike by chance."""

_SAYS_SO: Final = pattern("says_so")


def repeated(turn: Prepared) -> int | None:
    """Return the number of the answered turn whose question this message asks again; None if it is a new one.

    Of several the latest counts. A visitor who only says that the question was asked before means the last answer.
    """
    answered = [past for past in turn.past if past.shown_html]
    words = significant(turn.text)
    if len(words) >= _FEWEST:
        for past in reversed(answered):
            earlier = significant(past.asked)
            if len(words & earlier) >= ALIKE * len(words | earlier):
                return past.seq
    return answered[-1].seq if answered and _SAYS_SO.search(turn.text[:MAX_READ].lower()) else None


def says_so(text: str) -> bool:
    """Tell whether a visitor complains of not having got an answer, whatever was asked before."""
    return _SAYS_SO.search(text[:MAX_READ].lower()) is not None
