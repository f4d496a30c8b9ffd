"""The event decoder against every way a network may cut a stream."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.completions import Malformed
from workers.providers.sse import SseDecoder

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
NOISE = st.sampled_from([":", ": keep-alive", "event: x", "id: 7", "retry: 10", "database: no", "nonsense"])
EVENT = st.tuples(st.lists(LINE, min_size=1, max_size=3), st.lists(NOISE, max_size=2), st.booleans())
END = st.sampled_from(["\n", "\r\n", "\r"])


def _wire(events: list[tuple[list[str], list[str], bool]], end: str) -> bytes:
    text = ""
    for lines, noise, space in events:
        for line in noise:
            text += line + end
        for line in lines:
            # A space that belongs to the data needs the optional one before it.
            text += ("data: " if space or line.startswith(" ") else "data:") + line + end
        text += end
    return text.encode()


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@given(st.lists(EVENT, max_size=6), END, st.lists(st.integers(0, 10_000), max_size=12))
def test_every_split_gives_the_same_events(
    events: list[tuple[list[str], list[str], bool]], end: str, cuts: list[int]
) -> None:
    """However a stream is cut into reads and ends its lines, its events are those that were sent."""
    decoder = SseDecoder()
    got = [data for read in _split(_wire(events, end), cuts) for data in decoder.feed(read)]
    assert got == ["\n".join(lines).encode() for lines, _, _ in events]


@given(st.lists(EVENT, max_size=4), END)
def test_byte_by_byte(events: list[tuple[list[str], list[str], bool]], end: str) -> None:
    """A stream that arrives byte by byte is read like any other."""
    decoder = SseDecoder()
    got = [data for byte in _wire(events, end) for data in decoder.feed(bytes([byte]))]
    assert got == ["\n".join(lines).encode() for lines, _, _ in events]


def test_events_end_at_once() -> None:
    """An event is given out with the read that ends it, not with the next one, whatever the line ending."""
    for end in (b"\n", b"\r\n", b"\r"):
        assert SseDecoder().feed(b"data: a" + end + end) == [b"a"]


def test_an_unended_event_is_none() -> None:
    """What follows the last blank line is no event."""
    assert SseDecoder().feed(b"data: a\n\ndata: b\n") == [b"a"]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 30, b"x" * 30, b"data: xxxxxxxxxxxxxxxxxxxx\n"])
def test_endless_events_are_refused(piece: bytes) -> None:
    """A line or an event that never ends is refused once it is longer than allowed, not collected."""
    decoder = SseDecoder(most_bytes=100)
    with pytest.raises(Malformed, match="over 100 bytes"):
        _ = [decoder.feed(piece) for _ in range(10)]


def test_long_streams_are_not_long_events() -> None:
    """The bound is for one event: many small ones may pass it together."""
    decoder = SseDecoder(most_bytes=100)
    assert sum(len(decoder.feed(b": c\r\ndata: 0123456789\r\n\r\n")) for _ in range(100)) == 100
