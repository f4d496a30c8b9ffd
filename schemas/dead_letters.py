"""Why a turn left its lane without the answer it came for."""

from enum import StrEnum
from typing import Final


class DeadLetterReason(StrEnum):
    """A closed list: dashboards and replay filters count on it."""

    UNDECODABLE = "undecodable"
    SCHEMA_VIOLATION = "schema_violation"
    UNKNOWN_TENANT = "unknown_tenant"
    CONFLICT = "conflict"
    QUEUE_DEADLINE = "queue_deadline"
    WORKER_LOST = "worker_lost"
    BACKEND_FAILED_TWICE = "backend_failed_twice"
    TURN_DEADLINE = "turn_deadline"
    SEAL_UNKNOWN = "seal_unknown"


class DeadLetterState(StrEnum):
    """What has become of it."""

    UNANSWERED = "unanswered"
    ANSWERED_BY_FALLBACK = "answered_by_fallback"
    REPLAYED = "replayed"
    OBSOLETE = "obsolete"
    DISCARDED = "discarded"


# Headers beside the original ones, all UTF-8 text (the convention of Kafka Connect, with our own prefix).
H_ORIGINAL_TOPIC: Final = "dlq-original-topic"
H_ORIGINAL_PARTITION: Final = "dlq-original-partition"
H_ORIGINAL_OFFSET: Final = "dlq-original-offset"
H_ORIGINAL_TIMESTAMP: Final = "dlq-original-timestamp"
H_CONSUMER_GROUP: Final = "dlq-consumer-group"
H_SERVICE: Final = "dlq-service"
H_STAGE: Final = "dlq-stage"
H_ERROR_TYPE: Final = "dlq-error-type"
H_ERROR_MESSAGE: Final = "dlq-exception-message"
H_FAILED_AT: Final = "dlq-failed-at"
