"""What a turn's model read of the knowledge base, and which of it its answer cites."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from schemas.knowledge import Passage


class Cited(BaseModel):
    """One source of an answer, as a visitor may see it. Written by us from the knowledge base, never by a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: Annotated[int, Field(ge=1)]
    """Of the passage among those the model was shown."""
    passage_id: str
    name: str
    """Title and heading, or the last part of the file's name: no path of the machine it was added on."""
    url: str | None = None
    """Where it can be read; None for what has no public https address."""


class Read(BaseModel):
    """What a model was shown of the knowledge base for one turn; kept in the turn's plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passages: tuple[str, ...] = ()
    """Ids, in the order of their numbers."""
    cut: int = 0
    """How many more there were, left out to keep the budget."""
    cited: tuple[Cited, ...] = ()


NOTHING_READ = Read()


def cite(number: int, passage: Passage) -> Cited:
    """Return the passage as a source with its number."""
    heading = passage.heading.rpartition(" > ")[2]
    title = passage.title or passage.source.rstrip("/").replace("\\", "/").rpartition("/")[2] or passage.source
    name = title if not heading or heading == title else f"{title}: {heading}"
    return Cited(number=number, passage_id=passage.passage_id, name=" ".join(name.split()), url=safe_url(passage))


def safe_url(passage: Passage) -> str | None:
    """Return the passage's address if it is a plain https one: no credentials, nothing that would need escaping."""
    address = passage.source
    if not address.isascii() or not address.isprintable() or any(char in address for char in " \"'<>`\\^{}|"):
        return None
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return None
    return address if parts.scheme == "https" and host and "@" not in parts.netloc else None
