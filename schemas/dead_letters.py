"""Why a turn left its lane without the answer it came for."""

from enum import StrEnum
from typing import Final

from schemas.completions import LoadFailed, LowConfidence, Malformed, ProviderError, Unavailable


class DeadLetterReason(StrEnum):
    """A closed list: dashboards and replay filters count on it."""

    UNDECODABLE = "undecodable"
    SCHEMA_VIOLATION = "schema_violation"
    UNKNOWN_TENANT = "unknown_tenant"
    CONFLICT = "conflict"
    QUEUE_DEADLINE = "queue_deadline"
    WORKER_LOST = "worker_lost"
    POISON = "poison"
    """Its second worker was lost as well: the turn itself may be what kills them."""
    LOAD_FAILURE = "load_failure"
    MALFORMED = "malformed"
    BACKEND_FAILED = "backend_failed"
    """The one model that could still be asked failed."""
    BACKEND_FAILED_TWICE = "backend_failed_twice"
    DEPENDENCY_DOWN = "dependency_down"
    """Nothing answered at the address of any model it could have been answered by."""
    BUDGET = "budget"
    """More turns had to be rescued than the policy pays for."""
    TURN_DEADLINE = "turn_deadline"
    SEAL_UNKNOWN = "seal_unknown"


class DeadLetterState(StrEnum):
    """What has become of it."""

    UNANSWERED = "unanswered"
    ANSWERED_BY_FALLBACK = "answered_by_fallback"
    REPLAYED = "replayed"
    OBSOLETE = "obsolete"
    DISCARDED = "discarded"


def reason_of_fallback(error: ProviderError) -> DeadLetterReason | None:
    """Return why a turn's own model counts as having lost it although the fallback may answer; None for an outage.

    An outage is seen in the numbers of calls. A model that cannot be loaded or writes nonsense has to be looked at.
    """
    match error:
        case Malformed():
            return DeadLetterReason.MALFORMED
        case LoadFailed():
            return DeadLetterReason.LOAD_FAILURE
        case _:
            return None


def reason_of_failure(last: ProviderError, first: ProviderError | None) -> DeadLetterReason:
    """Return why no model answered: `last` failed, and before it, within the same worker, `first` if any."""
    match last, first:
        case Malformed(), _:
            return DeadLetterReason.MALFORMED
        case Unavailable(), None | Unavailable():
            return DeadLetterReason.DEPENDENCY_DOWN
        case _, None | LowConfidence():  # an unsure model did not fail: only one did
            return DeadLetterReason.BACKEND_FAILED
        case _:
            return DeadLetterReason.BACKEND_FAILED_TWICE


# Headers beside the original ones, all UTF-8 text (the convention of Kafka Connect, with our own prefix).
H_ID: Final = "dlq-id"
H_TURN: Final = "dlq-turn-id"
"""Absent where the record never became a turn."""
H_ORIGINAL_TOPIC: Final = "dlq-original-topic"
H_ORIGINAL_PARTITION: Final = "dlq-original-partition"
H_ORIGINAL_OFFSET: Final = "dlq-original-offset"
H_ORIGINAL_TIMESTAMP: Final = "dlq-original-timestamp"
H_CONSUMER_GROUP: Final = "dlq-consumer-group"
H_SERVICE: Final = "dlq-service"
H_STAGE: Final = "dlq-stage"
H_ERROR_TYPE: Final = "dlq-error-type"
H_ERROR_MESSAGE: Final = "dlq-exception-message"
H_ATTEMPTS: Final = "dlq-attempts"
H_FIRST_FAILED_AT: Final = "dlq-first-failed-at"
H_FAILED_AT: Final = "dlq-failed-at"
H_REPLAY_COUNT: Final = "dlq-replay-count"
H_VERSIONS: Final = "dlq-versions"
"""JSON: versions of policy and prompt, the model's name."""
