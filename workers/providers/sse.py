"""Server-sent events without I/O: fed bytes as they arrive, gives the data of each event."""

from typing import Final

from schemas.completions import Malformed

MOST_BYTES: Final = 1_048_576
"""Of one event, lines and data together. A token is far below 1 KiB; this is a server that sends something else."""


class SseDecoder:
    """Reads one stream. Keeps `data`; comments and the fields `event`, `id` and `retry` mean nothing to us."""

    __slots__ = ("_after_cr", "_data", "_most", "_pieces", "_size")

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._pieces: list[bytes] = []
        """A line that has not ended yet, in the pieces it came in."""
        self._data: list[bytes] = []
        """Data lines of an event that has not ended yet."""
        self._size = 0
        self._after_cr = False

    def feed(self, read: bytes) -> list[bytes]:
        """Return the data of every event that ends in `read`; the lines of one are joined by newlines.

        Raises:
            Malformed: an event is longer than any model server's.
        """
        if not (self._pieces or self._data or self._after_cr):
            whole = _whole_events(read)
            if whole is not None:
                return whole
        return self._lines(self._newlines(read))

    def _newlines(self, read: bytes) -> bytes:
        """Return `read` with LF for each of CRLF, CR and LF, wherever a read may have split them."""
        if self._after_cr and read:
            self._after_cr = False
            read = read.removeprefix(b"\n")
        if b"\r" in read:
            self._after_cr = read.endswith(b"\r")
            read = read.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return read

    def _lines(self, read: bytes) -> list[bytes]:
        ended, newline, rest = read.rpartition(b"\n")
        events: list[bytes] = []
        if newline:
            for line in (b"".join(self._pieces) + ended).split(b"\n"):
                self._line(line, events)
            self._pieces = []
            self._size = sum(map(len, self._data))
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
        if self._size > self._most:
            raise Malformed(
                f"an event of the model server is over {self._most} bytes long; is the address a model server's?"
            )
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
        elif line == b"data":
            self._data.append(b"")


def _whole_events(read: bytes) -> list[bytes] | None:
    """Return the data if `read` is nothing but whole events of one `data: ` line each, as it mostly is."""
    if not read.endswith(b"\n\n") or b"\r" in read:
        return None
    events: list[bytes] = []
    for event in read[:-2].split(b"\n\n"):
        if not event.startswith(b"data: ") or b"\n" in event:
            return None
        events.append(event[6:])
    return events
