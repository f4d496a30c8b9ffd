"""The documents of the public contract say what the code does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from cli.contracts import documents, drift, json_schemas, write
from schemas.agents import Agent
from schemas.dead_letters import H_ERROR_TYPE, H_ID, H_ORIGINAL_OFFSET, H_ORIGINAL_PARTITION, H_ORIGINAL_TOPIC, H_STAGE
from schemas.envelope import Envelope, now_rfc3339, text_headers
from schemas.events import TYPE_TURN_SETTLED, TYPE_TURN_SUBMITTED, TurnSettled, TurnSubmitted
from schemas.frames import Phase, TurnStreamInfo, frames_of
from schemas.ids import TurnId, turn_id_for
from schemas.names import TOPICS, partition_key
from schemas.problems import Problem
from schemas.turns import TurnRequest

DOCS = Path(__file__).parents[2] / "docs"
TURN = turn_id_for("acme", "key-1")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

Node = dict[str, object]

SUBMITTED = TurnSubmitted(
    turn_id=TURN,
    tenant_id="acme",
    conversation_id="visitor-1",
    channel="web_chat",
    text="Hi, we lose track of stock.",
    body_sha256="0" * 64,
)
SETTLED = TurnSettled(
    turn_id=TURN,
    tenant_id="acme",
    conversation_id="visitor-1",
    seq=1,
    channel="web_chat",
    state="answered",
    agent=Agent.DISCOVERY,
    source="primary",
    html="<p>Hello.</p>",
    text="Hello.",
    settled_at=now_rfc3339(),
)
PROBLEM = Problem(type="/problems/conflict", title="Conflict", status=409, detail="Use a new key.", code="conflict")


def _frames() -> list[object]:
    info = TurnStreamInfo(turn_id=TurnId(TURN), conversation_id="visitor-1", created=1_790_000_000)
    whole = frames_of(info, routed=True, content="<p>Hello.</p>", cuts=(3, 10), ended=Phase.DONE)
    broken = frames_of(info, routed=False, content="", cuts=(), ended=Phase.FAILED, closing="<p>Sorry.</p>")
    coalesced = frames_of(info, routed=False, content="", cuts=(), ended=Phase.DONE, answered_in=TURN)
    return [json.loads(frame.json) for frame in whole + broken + coalesced]


SAMPLES: list[tuple[str, object]] = [
    (TYPE_TURN_SUBMITTED, json.loads(SUBMITTED.model_dump_json())),
    (TYPE_TURN_SETTLED, json.loads(SETTLED.model_dump_json())),
    ("turn-request", json.loads(TurnRequest(text="Hi").model_dump_json())),
    ("problem", json.loads(PROBLEM.model_dump_json())),
    *[("frame", frame) for frame in _frames()],
]


def _asyncapi() -> Node:
    return yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))


def _at(document: Node, pointer: str) -> Node:
    """Return the object at a JSON pointer such as `#/components/messages`."""
    node = document
    for step in pointer.removeprefix("#/").split("/"):
        node = cast("Node", node[step])
    return node


def _validator(schema: object) -> Draft202012Validator:
    return Draft202012Validator(cast("Node", schema))


def _refs(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, inner in cast("Node", node).items():
            if key == "$ref":
                yield cast("str", inner)
            else:
                yield from _refs(inner)
    elif isinstance(node, list):
        for inner in cast("list[object]", node):
            yield from _refs(inner)


def test_documents_are_what_the_code_says() -> None:
    """Nothing in docs differs from what the code would write now."""
    assert drift(DOCS) == []


def test_drift_is_seen(tmp_path: Path) -> None:
    """A changed, a missing and a superfluous document are each named; writing mends the first two."""
    assert len(drift(tmp_path)) == len(documents())
    write(tmp_path, openapi={"openapi": "3.1.0"})
    assert drift(tmp_path, openapi={"openapi": "3.1.0"}) == []
    (tmp_path / "asyncapi.yaml").write_text("changed")
    (tmp_path / "schemas" / "frame.json").unlink()
    (tmp_path / "schemas" / "old.json").write_text("{}")
    complaints = drift(tmp_path, openapi={"openapi": "3.1.1"})
    assert sorted(complaint.partition(";")[0] for complaint in complaints) == [
        "missing: frame.json",
        "outdated: asyncapi.yaml",
        "outdated: openapi.json",
        "schemas of nothing: schemas/old.json",
    ]


@pytest.mark.parametrize("name", sorted(json_schemas()))
def test_each_schema_is_a_schema(name: str) -> None:
    """Each file is valid against the meta-schema of draft 2020-12 and is named by its own address."""
    schema = json.loads((DOCS / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"/schemas/{name}.json"


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_what_the_code_writes_fits_its_schema(name: str, sample: object) -> None:
    """Events, bodies and frames as the code serialises them are valid."""
    _validator(json_schemas()[name]).validate(sample)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (TYPE_TURN_SUBMITTED, {"tenant_id": "Acme:1"}),
        (TYPE_TURN_SUBMITTED, {"surprise": 1}),
        (TYPE_TURN_SUBMITTED, {"text": ""}),
        (TYPE_TURN_SETTLED, {"state": "running"}),
        (TYPE_TURN_SETTLED, {"seq": 0}),
        ("frame", {"fairlead": {"seq": -1}}),
        ("frame", {"choices": []}),
    ],
)
def test_what_does_not_fit_is_refused(name: str, change: Node) -> None:
    """The schemas are narrow: unknown fields, wrong states and empty texts are not valid."""
    sample = dict(cast("Node", next(sample for known, sample in SAMPLES if known == name)))
    with pytest.raises(ValidationError):
        _validator(json_schemas()[name]).validate(sample | change)


def test_asyncapi_has_its_parts() -> None:
    """The document is of version 3.1, has a channel for each topic, and each operation uses one of them."""
    document = _asyncapi()
    assert document["asyncapi"] == "3.1.0"
    assert {"info", "servers", "channels", "operations", "components", "defaultContentType"} <= document.keys()
    channels = cast("dict[str, Node]", document["channels"])
    assert {channel["address"] for channel in channels.values()} == set(TOPICS)
    for channel in channels.values():
        kafka = _at(channel, "#/bindings/kafka")
        assert (kafka["topic"], kafka["bindingVersion"]) == (channel["address"], "0.5.0")
    for operation in cast("dict[str, Node]", document["operations"]).values():
        assert operation["action"] in {"send", "receive"}
        used = cast("Node", operation["channel"])["$ref"]
        for message in cast("list[Node]", operation["messages"]):
            assert str(message["$ref"]).startswith(f"{used}/messages/")


def test_asyncapi_references_lead_somewhere() -> None:
    """Every reference points into the document or to a schema file that is there."""
    document = _asyncapi()
    references = set(_refs(document))
    assert references
    for reference in references:
        if reference.startswith("#/"):
            assert _at(document, reference), reference
        else:
            assert (DOCS / reference).is_file(), reference


def test_asyncapi_messages_are_named_by_their_type() -> None:
    """A message of a CloudEvent has its `ce_type` as name, its schema as payload, its key described."""
    messages = cast("dict[str, Node]", _at(_asyncapi(), "#/components/messages"))
    assert {TYPE_TURN_SUBMITTED, TYPE_TURN_SETTLED} < messages.keys()
    for name, message in messages.items():
        assert message["name"] == name
        assert message["traits"]
    for name in (TYPE_TURN_SUBMITTED, TYPE_TURN_SETTLED):
        assert _at(messages[name], "#/payload/schema")["$ref"] == f"schemas/{name}.json"
        assert _at(messages[name], "#/bindings/kafka/key")


@pytest.mark.parametrize("traceparent", [None, TRACE])
def test_real_headers_fit_the_trait(traceparent: str | None) -> None:
    """The headers that an envelope writes are the ones the document describes."""
    envelope = Envelope(
        id="e1",
        type=TYPE_TURN_SUBMITTED,
        source="/fairlead/gateway",
        subject=TURN,
        tenant="acme",
        partition_key=partition_key("acme", "visitor-1"),
        time=now_rfc3339(),
        traceparent=traceparent,
    )
    schema = _at(_asyncapi(), "#/components/schemas/CloudEventHeaders")
    headers = text_headers(envelope.headers())
    _validator(schema).validate(headers)
    assert headers.keys() <= cast("Node", schema["properties"]).keys()
    assert headers["ce_dataschema"] == json_schemas()[TYPE_TURN_SUBMITTED]["$id"]


def test_dead_letter_headers_are_closed_where_counted() -> None:
    """A dead letter keeps foreign headers, and its reason is one of the closed list."""
    validator = _validator(_at(_asyncapi(), "#/components/schemas/DeadLetterHeaders"))
    letter = {
        "x-anybody": "kept",
        H_ID: "6f1c0d3e-6f0a-5a3c-9b8e-0d6a4f4b2c11",
        H_ORIGINAL_TOPIC: "fairlead.turns",
        H_ORIGINAL_PARTITION: "3",
        H_ORIGINAL_OFFSET: "41",
        H_STAGE: "decode",
        H_ERROR_TYPE: "undecodable",
    }
    validator.validate(letter)
    for change in ({H_ERROR_TYPE: "because"}, {H_ORIGINAL_OFFSET: "\x00\x00"}):
        with pytest.raises(ValidationError):
            validator.validate(letter | change)
