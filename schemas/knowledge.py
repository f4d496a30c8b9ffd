"""What a tenant's knowledge base holds, and what was found in it for one message."""

from typing import Annotated, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

PassageKind: TypeAlias = Literal["document", "answer"]
"""A piece of a document, or a question and answer that somebody wrote: that one wins over documents."""

RetrievalState: TypeAlias = Literal["off", "found", "nothing", "late", "failed"]
"""`off`: the tenant has no knowledge base. `late` and `failed`: nobody knows, so no certainty may be pretended."""


class Passage(BaseModel):
    """One piece of the knowledge base. Its text is untrusted: it is quoted to a model, never obeyed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passage_id: str
    source: str
    """The file's path or the URL as it was added."""
    title: str = ""
    heading: str = ""
    """Headings above it, outermost first, joined by ` > `."""
    text: str
    score: Annotated[float, Field(ge=0)] = 0.0
    """Of the fused ranking; comparable within one retrieval only."""
    kind: PassageKind = "document"
    language: str = ""
    """Of its document, two letters; empty where nobody knows."""

    @property
    def link(self) -> str | None:
        """Return where a visitor can read it; None for what has no public address."""
        return self.source if self.source.startswith(("https://", "http://")) else None


class Retrieved(BaseModel):
    """What the researcher found for one message."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: RetrievalState = "off"
    passages: tuple[Passage, ...] = ()
    """Best first."""
    answerable: bool = False
    """Whether the knowledge base probably holds an answer; the threshold is the policy's."""
    score: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How sure that is."""
    snapshot: str | None = None
    """The version of the knowledge base that was read."""


class Piece(BaseModel):
    """A part of a document, small enough to be found and quoted by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heading: str = ""
    """Headings above it, outermost first, joined by ` > `."""
    text: str


class Document(BaseModel):
    """A file, a page or a set of questions and answers, read and cut into pieces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    """The file's path or the URL as it was added; one document for each in a knowledge base."""
    title: str = ""
    kind: PassageKind = "document"
    sha256: str
    """Of the bytes it was read from: an unchanged document is not read again."""
    pieces: tuple[Piece, ...]


class Retrieve(Protocol):
    """Looks into a tenant's knowledge base."""

    async def __call__(self, tenant: str, text: str, *, language: str) -> Retrieved:
        """Return what is found for `text`; whatever goes wrong is a state of it, and never an exception."""
        ...
