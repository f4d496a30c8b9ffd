"""What a model has written so far, and the parts that the agents' shapes have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import JsonValue

Schema: TypeAlias = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Written:
    """An answer on its way."""

    fields: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """Top-level fields that were complete before the visible text began."""
    text: str | None = None
    """The whole visible text without tags; None while it is still to come."""

    @property
    def dimension(self) -> str:
        """What the answer is, as decided before its text."""
        found = self.fields.get("dimension")
        return found if isinstance(found, str) else ""

    def citations(self, passages: int) -> tuple[int, ...]:
        """Return the numbers of passages that are cited, each once; numbers there are not are dropped."""
        found = self.fields.get("citations")
        numbers = found if isinstance(found, list) else []
        valid = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= passages]
        return tuple(dict.fromkeys(valid))


def shape(dimensions: Sequence[str], *, passages: int, more: Mapping[str, JsonValue] | None = None) -> Schema:
    """Return the shape of an answer: what it is, what it cites, its text, then `more`.

    Args:
        dimensions: what the answer may be; the first key, so it is decided before any text.
        passages: how many passages there are to cite.
        more: properties after the text.
    """
    numbers: JsonValue = {"type": "integer", "enum": list(range(1, passages + 1))}
    properties: dict[str, JsonValue] = {
        "dimension": {"type": "string", "enum": list(dimensions)},
        **({"citations": {"type": "array", "items": numbers}} if passages else {}),
        "html_response": {"type": "string"},
        **(more or {}),
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
