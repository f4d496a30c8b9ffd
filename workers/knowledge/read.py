"""From bytes to a document, whatever its kind. Nothing is fetched, nothing is run."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final, assert_never

from schemas.knowledge import Document, Piece
from workers.knowledge.blocks import Block, Outline, Unreadable
from workers.knowledge.characters import decoded, visible
from workers.knowledge.markdown import read_markdown
from workers.knowledge.media import Media
from workers.knowledge.pieces import pieces
from workers.knowledge.plain import read_plain
from workers.knowledge.questions import Answered, read_csv, read_jsonl
from workers.knowledge.webpage import read_html

MOST_PIECES: Final = 5_000
LONGEST_TITLE: Final = 200


def digest(raw: bytes) -> str:
    """Return what an unchanged document is known by."""
    return hashlib.sha256(raw).hexdigest()


def read(raw: bytes, media: Media, *, source: str, charset: str | None = None) -> Document:
    """Return a document and its pieces. It may take seconds: call it in a thread.

    Args:
        raw: the file's or page's bytes.
        media: what they are.
        source: the path or URL it is known by.
        charset: as somebody told it; without one it is UTF-8 or windows-1252.

    Raises:
        Unreadable: the bytes are not what they should be, or there is nothing to read in them.
    """
    match media:
        case Media.QUESTIONS_JSONL:
            return _answers(read_jsonl(decoded(raw, charset)), raw, source)
        case Media.QUESTIONS_CSV:
            return _answers(read_csv(decoded(raw, charset)), raw, source)
        case Media.PDF:
            from workers.knowledge.portable import read_pdf  # half a second to import, and most documents are no PDF

            return _document(read_pdf(raw), raw, source)
        case Media.MARKDOWN:
            return _document(read_markdown(visible(decoded(raw, charset))), raw, source)
        case Media.TEXT:
            return _document(read_plain(visible(decoded(raw, charset))), raw, source)
        case Media.HTML:
            return _document(read_html(visible(decoded(raw, charset or _declared(raw)))), raw, source)
        case Media.SITEMAP:
            raise Unreadable("It is XML, which is read only as a sitemap, by its URL.")
        case _:
            assert_never(media)


_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)


def _declared(raw: bytes) -> str | None:
    """Return the charset that a page names in its own first kilobyte."""
    found = _CHARSET.search(raw[:1024])
    return found[1].decode("ascii") if found is not None else None


def _document(outline: Outline, raw: bytes, source: str) -> Document:
    title = _line(outline.title)[:LONGEST_TITLE] or PurePosixPath(source.rstrip("/")).stem
    blocks = [clean for block in outline.blocks if (clean := _clean(block, title)) is not None]
    return _checked(Document(source=source, title=title, sha256=digest(raw), pieces=pieces(blocks)))


def _clean(block: Block, title: str) -> Block | None:
    """Return a block as it is kept; entities may have put back what was taken out. The title is not repeated."""
    text = visible(block.text).strip("\n")
    headings = tuple(_line(heading) for heading in block.headings)
    above = headings[1:] if headings[:1] == (title,) else headings
    return replace(block, text=text, headings=above) if re.search(r"\w", text) else None


def _line(text: str) -> str:
    return " ".join(visible(text).split())


def _answers(found: Sequence[Answered], raw: bytes, source: str) -> Document:
    cut = (
        Piece(heading=_line(one.question), text=piece.text)
        for one in found
        for piece in pieces(read_plain(visible(one.answer)).blocks)
    )
    title = PurePosixPath(source.rstrip("/")).stem
    return _checked(
        Document(source=source, title=title, kind="answer", sha256=digest(raw), pieces=tuple(dict.fromkeys(cut)))
    )


def _checked(document: Document) -> Document:
    if not document.pieces:
        raise Unreadable("There is no text in it.")
    if len(document.pieces) > MOST_PIECES:
        raise Unreadable(f"It would be {len(document.pieces):,} pieces, and {MOST_PIECES:,} are the most: split it.")
    return document
