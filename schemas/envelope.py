"""CloudEvents 1.0 in Kafka's binary mode: attributes as `ce_*` headers, the event's data as the value."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

Headers = Sequence[tuple[str, bytes | None]]

CONTENT_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The attributes of one event."""

    id: str
    type: str
    source: str
    subject: str
    tenant: str
    partition_key: str
    time: str
    traceparent: str | None = None
    """Trace of the hop that carries the event."""
    origin: str | None = None
    """Trace of the event's origin; stays the same over every hop."""

    def headers(self) -> list[tuple[str, bytes]]:
        """Return fresh Kafka headers; a producer may append to them."""
        pairs = [
            ("ce_specversion", "1.0"),
            ("ce_id", self.id),
            ("ce_source", self.source),
            ("ce_type", self.type),
            ("ce_subject", self.subject),
            ("ce_time", self.time),
            ("ce_tenantid", self.tenant),
            ("ce_partitionkey", self.partition_key),
            ("ce_dataschema", f"/schemas/{self.type}.json"),
            ("content-type", CONTENT_TYPE),
        ]
        if self.traceparent:
            pairs.append(("traceparent", self.traceparent))
        if self.origin or self.traceparent:
            pairs.append(("ce_traceparent", self.origin or self.traceparent or ""))
        return [(name, value.encode()) for name, value in pairs]


def now_rfc3339() -> str:
    """Return the present moment as CloudEvents writes it: RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_headers(headers: Iterable[tuple[str, bytes | None]] | Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """Read headers as text, the last value of a repeated name; bytes that are not UTF-8 are replaced."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
