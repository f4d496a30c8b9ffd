"""The documents of a knowledge base, as the gateway tells them and as lines."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel

from cli.tables import headed, second


class KnownDocument(BaseModel):
    """One document, as `GET /v1/knowledge/documents` tells it."""

    source: str
    title: str
    kind: str
    pieces: int
    added_at: datetime
    published: bool


class DocumentList(BaseModel):
    """All of them."""

    documents: list[KnownDocument]


def listed(documents: Sequence[KnownDocument], *, styled: bool) -> str:
    """Return documents as a table."""
    if not documents:
        return "The knowledge base is empty: see `fairlead kb add`.\n"
    rows = [
        (one.source, one.title, one.kind, str(one.pieces), second(one.added_at), "" if one.published else "not yet")
        for one in documents
    ]
    return headed(("source", "title", "kind", "pieces", "since, UTC", "published"), rows, styled=styled)
