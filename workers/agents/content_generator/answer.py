"""The shape of written material: text, and beside it a diagram as data where one was asked for."""

from typing import Final

from pydantic import JsonValue

from infra.postgres.claims import Claim
from workers.agents.offered import offered
from workers.agents.written import Schema, Written, shape

MATERIAL: Final = "content"

_TEXT: Final[JsonValue] = {"type": "string"}


def _object(**properties: JsonValue) -> dict[str, JsonValue]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


DIAGRAM: Final[dict[str, JsonValue]] = {
    **_object(
        title=_TEXT,
        nodes={"type": "array", "items": _object(id=_TEXT, label=_TEXT)},
        edges={"type": "array", "items": _object(**{"from": _TEXT, "to": _TEXT, "label": _TEXT})},
    ),
    "type": ["object", "null"],
}
"""Boxes and arrows, or null. Whoever draws it checks it: a model may write anything of this shape."""


def schema(claim: Claim) -> Schema:
    """Return the shape; the diagram comes last, when all text has been shown."""
    return shape([MATERIAL], passages=len(offered(claim)), more={"diagram": DIAGRAM})


def problem(claim: Claim, written: Written) -> str | None:
    """Return why the material breaks the rules: so far it may be made of the conversation alone."""
    del claim
    return None if written.dimension == MATERIAL else "the content generator's answer is not marked as material"
