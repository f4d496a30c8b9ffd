"""A diagram as a model describes it: a small graph of labelled boxes and arrows, read strictly."""

import unicodedata
from collections.abc import Iterable
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

MAX_NODES: Final = 30
MAX_EDGES: Final = 60
MAX_TITLE_CHARS: Final = 100
MAX_LABEL_CHARS: Final = 80
MAX_EDGE_LABEL_CHARS: Final = 40

_RAW_CHARS: Final = 2_000
_JOINERS: Final = "\u200c\u200d"
"""Scripts and emoji need them; every other character without a shape of its own goes."""


class DiagramRefused(ValueError):
    """The description is no diagram of ours. The message says why, and quotes nothing of it."""


def _label(most: int) -> BeforeValidator:
    def clean(value: object) -> object:
        return clean_label(value, most) if isinstance(value, str) else "" if value is None else value

    return BeforeValidator(clean)


def clean_label(text: str, most: int) -> str:
    """Return `text` in one line, without control and formatting characters, cut to `most` characters."""
    words = " ".join(text[:_RAW_CHARS].split())
    kept = "".join(char for char in words if char in _JOINERS or not unicodedata.category(char).startswith("C"))
    kept = " ".join(kept.split())
    return kept if len(kept) <= most else kept[: most - 1].rstrip() + "…"


_Id = Annotated[str, Field(min_length=1, max_length=64)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Node(_Strict):
    """One box."""

    id: _Id
    """Names the node within the diagram; never shown."""
    label: Annotated[str, _label(MAX_LABEL_CHARS), Field(min_length=1)]


class Edge(_Strict):
    """One arrow."""

    source: Annotated[_Id, Field(alias="from")]
    target: Annotated[_Id, Field(alias="to")]
    label: Annotated[str, _label(MAX_EDGE_LABEL_CHARS)] = ""


class Diagram(_Strict):
    """A graph whose arrows lead from node to node. Labels are untrusted text in one line."""

    title: Annotated[str, _label(MAX_TITLE_CHARS), Field(min_length=1)]
    nodes: Annotated[tuple[Node, ...], Field(min_length=1, max_length=MAX_NODES)]
    edges: Annotated[tuple[Edge, ...], Field(max_length=MAX_EDGES)] = ()
    direction: Literal["TB", "LR"] = "TB"
    """From top to bottom, or from left to right."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        known = {node.id for node in self.nodes}
        if len(known) < len(self.nodes):
            raise ValueError(f"node {_repeated(node.id for node in self.nodes)} has the id of an earlier node")
        for number, edge in enumerate(self.edges, start=1):
            if edge.source not in known or edge.target not in known:
                raise ValueError(f"edge {number} names a node that the diagram does not have")
            if edge.source == edge.target:
                raise ValueError(f"edge {number} leads from a node to itself")
        ways = [(edge.source, edge.target) for edge in self.edges]
        if len(set(ways)) < len(ways):
            raise ValueError(f"edge {_repeated(ways)} repeats an earlier edge")
        return self


def read_diagram(described: object) -> Diagram:
    """Return the diagram that a model described.

    Raises:
        DiagramRefused: it is none, or too large.
    """
    try:
        return Diagram.model_validate(described)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        places = [str(part) if isinstance(part, int) or part in _FIELDS else "…" for part in first["loc"]]
        place = ".".join(places) or "the whole"
        raise DiagramRefused(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


_FIELDS: Final = frozenset({*Diagram.model_fields, *Node.model_fields, "from", "to"})


def _repeated(values: Iterable[object]) -> int:
    """Return the number, from 1, of the first value that came before."""
    seen: set[object] = set()
    for number, value in enumerate(values, start=1):
        if value in seen:
            return number
        seen.add(value)
    raise AssertionError("asked only where one comes twice")
