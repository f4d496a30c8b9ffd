"""What a watcher is told, from any mixture of frames."""

from hypothesis import given
from hypothesis import strategies as st

from producers.gateway.streams import sse
from producers.gateway.watch import FROM_THE_START, Telling
from schemas.frames import Phase, TurnStreamInfo, WireFrame, frames_of
from schemas.ids import TurnId

INFO = TurnStreamInfo(TurnId("3f9d3f0e-6b5e-5a60-9a4e-0c8d6f1f2a11"), "c1", 1_700_000_000)
WHOLE = frames_of(INFO, routed=True, content="abcdefgh", cuts=(1, 2, 3, 2), ended=Phase.DONE)


@given(
    after=st.integers(-1, len(WHOLE)),
    batches=st.lists(st.lists(st.sampled_from(WHOLE), max_size=8), max_size=20),
)
def test_every_frame_once_and_in_order(after: int, batches: list[list[WireFrame]]) -> None:
    """Repeated, lost and reordered frames never make a watcher see one twice, out of turn, or after the end."""
    telling = Telling(after)
    told = [frame for batch in batches for frame in telling.offer(batch)]
    assert [frame.seq for frame in told] == list(range(after + 1, after + 1 + len(told)))
    told += telling.offer(WHOLE)
    assert told == WHOLE[after + 1 :]
    assert telling.ended
    assert telling.offer(WHOLE) == []


def test_gap_is_noticed() -> None:
    """A frame whose predecessor is missing is held back, and the gap is told."""
    telling = Telling(FROM_THE_START)
    assert telling.offer([WHOLE[0], WHOLE[2]]) == [WHOLE[0]]
    assert telling.gap
    assert telling.offer(WHOLE[1:3]) == WHOLE[1:3]
    assert not telling.gap


def test_watcher_that_has_everything_is_done() -> None:
    """A position at or behind the end is an end, not a wait."""
    telling = Telling(99)
    assert telling.offer(WHOLE) == []
    assert telling.ended


def test_wire_form_of_an_event() -> None:
    """A frame on the wire is its number, its JSON untouched, and an empty line."""
    assert sse(WHOLE[1:2]).decode() == f"id: 1\ndata: {WHOLE[1].json}\n\n"
