"""The three topics as an AsyncAPI 3.1 document. Message names are the events' `ce_type`."""

from typing import Final

from schemas import dead_letters as dlq
from schemas.dead_letters import DeadLetterReason
from schemas.events import TYPE_TURN_SETTLED, TYPE_TURN_SUBMITTED
from schemas.names import GROUP_ORCHESTRATOR, TOPIC_DEAD_LETTERS, TOPIC_RESULTS, TOPIC_TURNS

Json = dict[str, object]

DEAD_LETTER: Final = "io.fairlead.turn.dead_letter"
"""Name of the dead-letter message. It has no `ce_type` of its own: the headers are the original's."""

_BINDING: Final = "0.5.0"
_SCHEMA_FORMAT: Final = "application/schema+json;version=draft-2020-12"
_TRACEPARENT: Final = "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
_NUMBER: Final = "^[0-9]+$"
_UUID: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


def asyncapi_document() -> Json:
    """Return the document; `send` and `receive` are said from Fairlead's own side."""
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Fairlead events",
            "version": "1.0.0",
            "description": "Turns on their way in, their endings on the way out, and turns that left their lane. "
            "CloudEvents 1.0 in Kafka's binary mode; records of one conversation share a partition.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {"host": "localhost:9092", "protocol": "kafka", "description": "Set by FAIRLEAD_KAFKA."},
        },
        "channels": {
            "turns": _channel(TOPIC_TURNS, "Messages accepted from every channel.", TYPE_TURN_SUBMITTED),
            "results": _channel(TOPIC_RESULTS, "How each turn ended, once it has.", TYPE_TURN_SETTLED),
            "deadLetters": _channel(
                TOPIC_DEAD_LETTERS, "Turns that left their lane: the original record and the reason.", DEAD_LETTER
            ),
        },
        "operations": {
            "submitTurn": _operation("send", "turns", TYPE_TURN_SUBMITTED, "A producer accepts a message."),
            "takeTurn": _operation(
                "receive", "turns", TYPE_TURN_SUBMITTED, "The orchestrator writes it to the ledger.", GROUP_ORCHESTRATOR
            ),
            "tellResult": _operation("send", "results", TYPE_TURN_SETTLED, "A settled turn leaves the outbox."),
            "writeDeadLetter": _operation("send", "deadLetters", DEAD_LETTER, "A turn leaves its lane unanswered."),
        },
        "components": {
            "messages": _messages(),
            "messageTraits": _traits(),
            "schemas": {
                "CloudEventHeaders": _cloud_event_headers(),
                "DeadLetterHeaders": _dead_letter_headers(),
                "ConversationKey": {
                    "type": "string",
                    "description": "tenant:conversation",
                    "pattern": "^[a-z0-9][a-z0-9-]{0,62}:.+$",
                },
            },
        },
    }


def _ref(pointer: str) -> Json:
    return {"$ref": pointer}


def _channel(topic: str, description: str, message: str) -> Json:
    return {
        "address": topic,
        "description": description,
        "messages": {message: _ref(f"#/components/messages/{message}")},
        "bindings": {
            "kafka": {
                "topic": topic,
                "topicConfiguration": {"cleanup.policy": ["delete"]},
                "bindingVersion": _BINDING,
            }
        },
    }


def _operation(action: str, channel: str, message: str, summary: str, group: str | None = None) -> Json:
    operation: Json = {
        "action": action,
        "summary": summary,
        "channel": _ref(f"#/channels/{channel}"),
        "messages": [_ref(f"#/channels/{channel}/messages/{message}")],
    }
    if group is not None:
        operation["bindings"] = {"kafka": {"groupId": {"type": "string", "enum": [group]}, "bindingVersion": _BINDING}}
    return operation


def _messages() -> Json:
    return {
        TYPE_TURN_SUBMITTED: _event(TYPE_TURN_SUBMITTED, "Turn submitted", "A message was accepted from a channel."),
        TYPE_TURN_SETTLED: _event(TYPE_TURN_SETTLED, "Turn settled", "A turn reached its end."),
        DEAD_LETTER: {
            "name": DEAD_LETTER,
            "title": "Dead letter",
            "summary": "Key, value and headers of the original record, unchanged, with the reason beside them.",
            "contentType": "application/octet-stream",
            "traits": [_ref("#/components/messageTraits/deadLetter")],
            "payload": {"description": "The original value, byte for byte; it may not be JSON at all."},
        },
    }


def _event(name: str, title: str, summary: str) -> Json:
    return {
        "name": name,
        "title": title,
        "summary": summary,
        "traits": [_ref("#/components/messageTraits/cloudEvent")],
        "payload": {"schemaFormat": _SCHEMA_FORMAT, "schema": _ref(f"schemas/{name}.json")},
        "bindings": {
            "kafka": {"key": _ref("#/components/schemas/ConversationKey"), "bindingVersion": _BINDING},
        },
    }


def _traits() -> Json:
    return {
        "cloudEvent": {
            "headers": _ref("#/components/schemas/CloudEventHeaders"),
            "contentType": "application/json",
            "correlationId": {
                "description": "The trace in which the event arose.",
                "location": "$message.header#/ce_traceparent",
            },
        },
        "deadLetter": {"headers": _ref("#/components/schemas/DeadLetterHeaders")},
    }


def _text(description: str, **more: object) -> Json:
    return {"type": "string", "description": description, **more}


def _cloud_event_headers() -> Json:
    always = {
        "ce_specversion": _text("CloudEvents version.", const="1.0"),
        "ce_id": _text("Unique for each event.", minLength=1),
        "ce_source": _text("The process that told it.", minLength=1),
        "ce_type": _text("What happened.", enum=[TYPE_TURN_SUBMITTED, TYPE_TURN_SETTLED]),
        "ce_subject": _text("The conversation it is about.", minLength=1),
        "ce_time": _text("When, RFC 3339 in UTC.", format="date-time"),
        "ce_tenantid": _text("Whose turn it is."),
        "ce_partitionkey": _text("The record's key.", pattern=":"),
        "ce_dataschema": _text("The schema of the value.", pattern=r"^/schemas/.+\.json$"),
        "content-type": _text("Of the value.", const="application/json"),
    }
    sometimes = {
        "traceparent": _text("W3C trace context of this hop.", pattern=_TRACEPARENT),
        "ce_traceparent": _text("W3C trace context of the origin, the same on every hop.", pattern=_TRACEPARENT),
    }
    return {"type": "object", "properties": {**always, **sometimes}, "required": list(always)}


def _dead_letter_headers() -> Json:
    """Return the headers beside the original ones, which are not restricted: the record may be anybody's."""
    always = {
        dlq.H_ID: _text("The dead letter's id.", pattern=_UUID),
        dlq.H_ORIGINAL_TOPIC: _text("Topic the record came from.", minLength=1),
        dlq.H_ORIGINAL_PARTITION: _text("Its partition, as decimal text.", pattern=_NUMBER),
        dlq.H_ORIGINAL_OFFSET: _text("Its offset, as decimal text.", pattern=_NUMBER),
        dlq.H_STAGE: _text("The stage that gave up."),
        dlq.H_ERROR_TYPE: _text("The closed reason.", enum=[reason.value for reason in DeadLetterReason]),
    }
    sometimes = {
        dlq.H_ORIGINAL_TIMESTAMP: _text("Its timestamp in milliseconds, as decimal text.", pattern=_NUMBER),
        dlq.H_CONSUMER_GROUP: _text("The consumer group that read it."),
        dlq.H_SERVICE: _text("The process that gave up."),
        dlq.H_ERROR_MESSAGE: _text("The error as a sentence, redacted.", maxLength=1024),
        dlq.H_TURN: _text("The turn; absent where the record never became one.", pattern=_UUID),
        dlq.H_ATTEMPTS: _text("Model calls reserved for it so far, as decimal text.", pattern=_NUMBER),
        dlq.H_FIRST_FAILED_AT: _text("When it first left a lane, RFC 3339 in UTC.", format="date-time"),
        dlq.H_REPLAY_COUNT: _text("How often an answer was asked for again, as decimal text.", pattern=_NUMBER),
        dlq.H_VERSIONS: _text("JSON: version of policy and prompt, and the model of the last call."),
        dlq.H_FAILED_AT: _text("When it gave up, RFC 3339 in UTC.", format="date-time"),
    }
    return {"type": "object", "properties": {**always, **sometimes}, "required": list(always)}
