"""Documents and questions for the retrieval bench, made of a folder of public data that is not part of the repository.

A folder holds `kb/plausible` (a product's documentation with `index.jsonl`), `retrieval/*.jsonl` (questions with the
document that answers them) and `conversations/*.jsonl` (other people's talk, which fills a knowledge base up).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from schemas.knowledge import Document, Piece

PIECE_CHARS: Final = 1_200
TALK_CHARS: Final = 420
"""Of a piece of talk: there is little text, and ten thousand pieces are wanted."""

_HEADING: Final = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
_LEAST_WORDS: Final = 4


Half = Literal["tuning", "test"]

Filled = tuple[list[Document], list["Question"]]
"""What a knowledge base holds, and the questions that it answers."""


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody asks, and the document that answers it."""

    text: str
    source: str
    kind: str
    """`faq`, `description` or `heading`."""

    @property
    def half(self) -> Half:
        """What it may be used for: to choose how is searched, or to tell how well. All of a document's are in one."""
        return "test" if int(_digest(self.source), 16) % 2 else "tuning"


@dataclass(frozen=True, slots=True)
class Section:
    """Text under its headings, outermost first."""

    headings: tuple[str, ...]
    text: str


def documentation(data: Path, *, stripped: bool) -> list[tuple[Document, list[Question]]]:
    """Return each document of the product's documentation with questions that it answers.

    Args:
        data: the folder.
        stripped: take titles and headings out of the documents and ask with them and with the descriptions, so that
            no question's words stand there for it; else ask what is in `retrieval/`.
    """
    asked = [] if stripped else list(_faq(data))
    found: list[tuple[Document, list[Question]]] = []
    for entry in _lines(data / "kb/plausible/index.jsonl"):
        path = data / "kb/plausible" / entry["file"]
        sections = list(_sections(path.read_text(encoding="utf-8")))
        source = f"kb/plausible/{entry['file']}"
        if stripped:
            questions = list(_held_out(entry, sections, source))
            said = [Section((), section.text.replace(entry["description"], "")) for section in sections]
            found.append((_document(source, "", said), questions))
        else:
            questions = [one for one in asked if one.source == source]
            found.append((_document(source, entry["title"], sections), questions))
    return found


def talk(data: Path) -> Iterator[Document]:
    """Yield conversations as documents, to fill a knowledge base with what answers none of the questions."""
    for path in sorted((data / "conversations").glob("*.jsonl")):
        for line in _lines(path):
            said = "\n".join(turn["text"] for turn in line["turns"])
            pieces = tuple(Piece(text=part) for part in _cut(said, TALK_CHARS))
            yield Document(source=f"talk/{line['conversation_id']}", sha256=_digest(said), pieces=pieces)


def bases(
    documents: Sequence[tuple[Document, list[Question]]], filling: Sequence[Document], pieces: int
) -> list[Filled]:
    """Return knowledge bases of about so many pieces: one with all documents, or as many as share none.

    Args:
        documents: with the questions that each answers.
        filling: documents that answer none, with which a knowledge base is filled up.
        pieces: of each knowledge base.
    """
    groups: list[list[tuple[Document, list[Question]]]] = [[]]
    n = 0
    for pair in sorted(documents, key=lambda pair: pair[0].sha256):
        if n + len(pair[0].pieces) > pieces and groups[-1]:
            groups.append([])
            n = 0
        groups[-1].append(pair)
        n += len(pair[0].pieces)
    if len(groups) > 1 and n < pieces / 2:
        groups.pop()
    return [_filled(group, filling, pieces) for group in groups]


def _filled(group: Sequence[tuple[Document, list[Question]]], filling: Sequence[Document], pieces: int) -> Filled:
    taken = [document for document, _ in group]
    n = sum(len(document.pieces) for document in taken)
    for document in filling:
        if n >= pieces:
            break
        taken.append(document)
        n += len(document.pieces)
    return taken, [question for _, asked in group for question in asked]


def _faq(data: Path) -> Iterator[Question]:
    for path in sorted((data / "retrieval").glob("plausible*.jsonl")):
        for line in _lines(path):
            yield Question(line["question"], f"kb/plausible/{line['doc_id']}.md", "faq")


def _held_out(entry: dict[str, Any], sections: Sequence[Section], source: str) -> Iterator[Question]:
    yield Question(f"{entry['title']}: {entry['description']}", source, "description")
    for heading in dict.fromkeys(section.headings[-1] for section in sections if len(section.headings) > 1):
        if len(heading.split()) >= _LEAST_WORDS:
            yield Question(heading, source, "heading")


def _document(source: str, title: str, sections: Sequence[Section]) -> Document:
    pieces = tuple(
        Piece(heading=" > ".join(section.headings), text=part)
        for section in sections
        for part in _cut(section.text, PIECE_CHARS)
    )
    return Document(source=source, title=title, sha256=_digest(repr(pieces)), pieces=pieces)


def _sections(markdown: str) -> Iterator[Section]:
    headings: list[tuple[int, str]] = []
    lines: list[str] = []
    for line in [*markdown.splitlines(), "# "]:
        match = _HEADING.match(line)
        if match is None:
            lines.append(line)
            continue
        if "".join(lines).strip():
            yield Section(tuple(name for _, name in headings), "\n".join(lines).strip())
        lines = []
        headings = [*((depth, name) for depth, name in headings if depth < len(match[1])), (len(match[1]), match[2])]


def _cut(text: str, most: int) -> Iterator[str]:
    """Yield parts of at most about so many characters, cut between paragraphs, else between lines."""
    part = ""
    for paragraph in re.split(r"\n\s*\n" if most > TALK_CHARS else r"\n", text):
        if part and len(part) + len(paragraph) > most:
            yield part
            part = ""
        part = f"{part}\n\n{paragraph}" if part else paragraph
    if part.strip():
        yield part


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _digest(said: str) -> str:
    return hashlib.sha256(said.encode()).hexdigest()
