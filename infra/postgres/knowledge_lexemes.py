"""A piece's words as PostgreSQL keeps them."""

from collections import defaultdict
from typing import Final

from infra.embeddings.words import terms
from schemas.knowledge import Piece

_MOST_POSITIONS: Final = 64
"""Of one word that are kept; ranking gains nothing by more."""

_LAST_POSITION: Final = 16_383


def lexemes_of(tenant: str, title: str, piece: Piece, language: str) -> str:
    """Return a `tsvector` as text: the words of title (weight A), headings (B) and text (D), and whose they are."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    position = 0
    for part, weight in ((title, "A"), (piece.heading, "B"), (piece.text, "")):
        for term in terms(part, language):
            position = min(position + 1, _LAST_POSITION)
            if len(found[term]) < _MOST_POSITIONS:
                found[term].append(f"{position}{weight}")
    # Terms hold letters and digits only, and a tenant's id no quote either.
    return " ".join([f"'@{tenant}'", *(f"'{term}':{','.join(places)}" for term, places in found.items())])
