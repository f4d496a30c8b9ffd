"""From what somebody named to the documents that are meant: a file, a folder's files, a page, a sitemap's pages."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from yarl import URL

from workers.knowledge.blocks import Unreadable
from workers.knowledge.fetch import Refused, judged
from workers.knowledge.media import Media, of_name

LARGEST_FILE: Final = 20 * 2**20
"""Bytes."""

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)
_LOCATION: Final = re.compile(r"<loc>\s*(?:<!\[CDATA\[)?\s*([^<\]]+?)\s*(?:\]\]>)?\s*</loc>")
_ENTITIES: Final = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&"))


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that may be read."""

    source: str
    """Its path as it was named, or below the folder that was."""
    path: Path
    named: bool
    """Whether somebody named it, and not only its folder."""


def is_url(given: str) -> bool:
    """Whether this is meant as a URL, of whatever scheme."""
    return _URL.match(given) is not None


def is_file(source: str) -> bool:
    """Whether a document was read from a file of this name, as far as its name tells."""
    return not is_url(source) and of_name(source) is not None


def files_of(given: str) -> list[File]:
    """Return the file of this path, or the files below it that can be read, in order; hidden ones are left out.

    Raises:
        Unreadable: there is nothing of this name.
    """
    source = Path(os.path.normpath(given)).as_posix()
    path = Path(given)
    if path.is_dir():
        below = sorted(_below(path))
        return [File(source=(Path(source) / one).as_posix(), path=path / one, named=False) for one in below]
    if not path.is_file():
        raise Unreadable("There is no such file or folder.")
    return [File(source=source, path=path, named=True)]


def media_of(file: File) -> Media:
    """Return what a file is.

    Raises:
        Unreadable: it is of no kind that can be read.
    """
    media = of_name(file.path.name)
    if media is None:
        raise Unreadable("It is no document that can be read: Markdown, HTML, PDF, text, or questions and answers.")
    return media


def content(file: File) -> bytes:
    """Return a file's bytes.

    Raises:
        Unreadable: it is too large, empty, or not open to this user.
    """
    try:
        with file.path.open("rb") as opened:
            raw = opened.read(LARGEST_FILE + 1)
    except OSError as error:
        raise Unreadable(f"It cannot be opened: {error.strerror or error}.") from error
    if len(raw) > LARGEST_FILE:
        raise Unreadable(f"It is larger than {LARGEST_FILE / 2**20:g} MiB.")
    return raw


def folder_prefix(given: str) -> str | None:
    """Return what the sources of a folder's files begin with; None for what is no folder."""
    if is_url(given) or not Path(given).is_dir():
        return None
    source = Path(os.path.normpath(given)).as_posix()
    return "" if source == "." else f"{source.rstrip('/')}/"


def locations(sitemap: str) -> list[str]:
    """Return the addresses that a sitemap, or an index of sitemaps, lists."""
    found: dict[str, None] = {}
    for match in _LOCATION.finditer(sitemap):
        address = match[1]
        for entity, character in _ENTITIES:
            address = address.replace(entity, character)
        found[address] = None
    return list(found)


def origin_of(url: str) -> str:
    """Return scheme, host and port of a page's address."""
    return str(URL(url).origin())


def same_site(base: str, links: list[str]) -> list[str]:
    """Return the links of a page that lead to pages of its own site, absolute, without fragments, each once."""
    origin = URL(base).origin()
    found: dict[str, None] = {}
    for link in links:
        try:
            absolute = judged(str(URL(base).join(URL(link))))
        except (ValueError, Refused):
            continue
        if absolute.origin() == origin:
            found[str(absolute)] = None
    return list(found)


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place) / name
            if not name.startswith(".") and of_name(name) is not None and _inside(path, folder):
                yield path.relative_to(folder)


def _inside(path: Path, folder: Path) -> bool:
    """Whether a file is a regular one that is really in its folder: a link may lead anywhere."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())
