"""What kind of document some bytes are: told by their server or their name, never guessed from the bytes."""

from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final


class Media(StrEnum):
    """The kinds that can be read."""

    MARKDOWN = "Markdown"
    HTML = "HTML"
    PDF = "PDF"
    TEXT = "plain text"
    QUESTIONS_JSONL = "questions and answers (JSON Lines)"
    QUESTIONS_CSV = "questions and answers (CSV)"
    SITEMAP = "a sitemap"


_SUFFIXES: Final = {
    ".md": Media.MARKDOWN,
    ".markdown": Media.MARKDOWN,
    ".mdx": Media.MARKDOWN,
    ".html": Media.HTML,
    ".htm": Media.HTML,
    ".xhtml": Media.HTML,
    ".pdf": Media.PDF,
    ".txt": Media.TEXT,
    ".text": Media.TEXT,
    ".jsonl": Media.QUESTIONS_JSONL,
    ".ndjson": Media.QUESTIONS_JSONL,
    ".csv": Media.QUESTIONS_CSV,
}
_TYPES: Final = {
    "text/markdown": Media.MARKDOWN,
    "text/x-markdown": Media.MARKDOWN,
    "text/html": Media.HTML,
    "application/xhtml+xml": Media.HTML,
    "application/pdf": Media.PDF,
    "application/x-ndjson": Media.QUESTIONS_JSONL,
    "application/jsonl": Media.QUESTIONS_JSONL,
    "text/csv": Media.QUESTIONS_CSV,
    "application/xml": Media.SITEMAP,
    "text/xml": Media.SITEMAP,
}
_BY_NAME: Final = frozenset({"", "text/plain", "application/octet-stream", "binary/octet-stream"})
"""Types that say nothing: servers send them for files that they do not know."""

ACCEPT: Final = "text/html, application/xhtml+xml, text/markdown, text/plain, application/pdf, text/csv, */*;q=0.1"


def of_name(name: str) -> Media | None:
    """Return what a file is by its suffix; None for what cannot be read."""
    return _SUFFIXES.get(PurePosixPath(name).suffix.lower())


def of_type(content_type: str, name: str) -> Media | None:
    """Return what a page is by its Content-Type, and by its path where that says nothing; None if it cannot be read."""
    essence = content_type.partition(";")[0].strip().lower()
    if essence not in _BY_NAME:
        return _TYPES.get(essence)
    return of_name(name) or (Media.TEXT if essence == "text/plain" else None)


def charset_of(content_type: str) -> str | None:
    """Return the charset that a Content-Type names."""
    for parameter in content_type.split(";")[1:]:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset":
            return value.strip().strip("\"'") or None
    return None
