"""Kafka headers as PostgreSQL keeps them: one array of bytes, name after value after name; NULL for no value."""

from collections.abc import Iterable, Sequence


def flat(headers: Iterable[tuple[str, bytes | None]]) -> list[bytes | None]:
    """Return headers as one list, in their order."""
    return [part for name, value in headers for part in (name.encode(), value)]


def pairs(parts: Sequence[bytes | None]) -> list[tuple[str, bytes | None]]:
    """Return the headers that `flat` made one list of."""
    return [
        ((name or b"").decode("utf-8", "replace"), value) for name, value in zip(parts[::2], parts[1::2], strict=True)
    ]


def byte_array(parts: Iterable[bytes | None]) -> str:
    """Return the literal of a `bytea[]`: arrays of different lengths cannot be one array of arrays."""
    return "{" + ",".join("NULL" if part is None else f'"\\\\x{part.hex()}"' for part in parts) + "}"
