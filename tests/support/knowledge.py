"""Documents to put into knowledge bases."""

import hashlib

from schemas.knowledge import Document, PassageKind, Piece


def document(source: str, *said: str, title: str = "", heading: str = "", kind: PassageKind = "document") -> Document:
    """A document of these texts, each a piece; its digest is that of what it says."""
    digest = hashlib.sha256("\n".join((title, heading, *said)).encode()).hexdigest()
    pieces = tuple(Piece(heading=heading, text=text) for text in said)
    return Document(source=source, title=title, kind=kind, sha256=digest, pieces=pieces)
