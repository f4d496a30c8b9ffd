"""The public contract as documents: written into `docs`, and compared with what is there.

`docs/schemas/*.json` are JSON Schemas (draft 2020-12) of events, HTTP bodies and frames, `docs/asyncapi.yaml`
describes the topics. An event names its schema in the header `ce_dataschema`, which is the schema's `$id`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import BaseModel

from cli.asyncapi import asyncapi_document
from schemas.events import TYPE_TURN_SETTLED, TYPE_TURN_SUBMITTED, TurnSettled, TurnSubmitted
from schemas.frames import MODEL_NAME, Phase
from schemas.problems import Problem
from schemas.turns import TurnRequest

Json = dict[str, object]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_ASYNCAPI: Final = "asyncapi.yaml"
_OPENAPI: Final = "openapi.json"
_NOTE: Final = "# Written by cli/contracts.py from the code; change the code, then write it again.\n"

_MODELS: Final[dict[str, tuple[type[BaseModel], Literal["validation", "serialization"]]]] = {
    TYPE_TURN_SUBMITTED: (TurnSubmitted, "validation"),
    TYPE_TURN_SETTLED: (TurnSettled, "serialization"),
    "turn-request": (TurnRequest, "validation"),
    "problem": (Problem, "serialization"),
}
"""Schema name to model, and whether its reader writes such a body or receives it."""


def write(directory: Path, *, openapi: Json | None = None) -> None:
    """Write every document below `directory`; `openapi` is the gateway's own description of itself."""
    for name, text in documents(openapi=openapi).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def drift(directory: Path, *, openapi: Json | None = None) -> list[str]:
    """Return one sentence for each document below `directory` that is not what the code says; empty is good."""
    expected = documents(openapi=openapi)
    found = {f"schemas/{path.name}" for path in (directory / "schemas").glob("*.json")}
    complaints = [_compare(directory / name, text) for name, text in expected.items()]
    complaints += [f"schemas of nothing: {name}; delete it" for name in sorted(found - expected.keys())]
    return [complaint for complaint in complaints if complaint is not None]


def openapi_document() -> Json:
    """Return the gateway's description of itself. Nothing is connected to."""
    # Only here: a web framework is a second of import.
    from infra.settings import Settings
    from producers.gateway.app import create_app
    from producers.gateway.process import build

    return create_app(build(Settings())).openapi()


def documents(*, openapi: Json | None = None) -> dict[str, str]:
    """Return the text of every document by its path below `docs`."""
    written = {f"schemas/{name}.json": _json(schema) for name, schema in json_schemas().items()}
    written[_ASYNCAPI] = _NOTE + yaml.safe_dump(asyncapi_document(), sort_keys=False, allow_unicode=True, width=100)
    if openapi is not None:
        written[_OPENAPI] = _json(openapi)
    return written


def json_schemas() -> dict[str, Json]:
    """Return each JSON Schema by its name."""
    schemas = {name: _named(name, model.model_json_schema(mode=mode)) for name, (model, mode) in _MODELS.items()}
    schemas["frame"] = _named("frame", _frame_schema())
    return schemas


def _compare(path: Path, text: str) -> str | None:
    if not path.is_file():
        return f"missing: {path.name}; write the contracts"
    if path.read_text(encoding="utf-8") != text:
        return f"outdated: {path.name}; write the contracts and read the difference as a change of the contract"
    return None


def _named(name: str, schema: Mapping[str, object]) -> Json:
    return {"$schema": _DIALECT, "$id": f"/schemas/{name}.json", **schema}


def _json(document: Json) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _frame_schema() -> Json:
    """Return the shape that `schemas.frames.render` gives a frame."""
    text = {"type": "string"}
    count = {"type": "integer", "minimum": 0}
    delta = _object({"role": {"const": "assistant"}, "content": text}, required=())
    choice = _object({"index": {"const": 0}, "delta": delta, "finish_reason": {"enum": [None, "stop", "length"]}})
    place = _object(
        {
            "turn_id": text,
            "conversation_id": text,
            "seq": count,
            "phase": {"enum": [phase.value for phase in Phase]},
            "answered_in": text
            | {"description": "In the terminal frame of a coalesced turn: the turn whose answer is also this one's."},
        },
        required=("turn_id", "conversation_id", "seq", "phase"),
    )
    frame = {
        "id": text | {"description": "The turn's id."},
        "object": {"const": "chat.completion.chunk"},
        "created": count | {"description": "Unix seconds; the same in every frame of a turn."},
        "model": {"const": MODEL_NAME},
        "choices": {"type": "array", "prefixItems": [choice], "items": False, "minItems": 1},
        "fairlead": place,
    }
    return {
        "title": "Frame",
        "description": "One numbered piece of a turn as its watchers see it: an OpenAI chat completion chunk.",
        **_object(frame),
    }


def _object(properties: Mapping[str, object], *, required: tuple[str, ...] | None = None) -> Json:
    names = list(properties) if required is None else list(required)
    return {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
        **({"required": names} if names else {}),
    }
