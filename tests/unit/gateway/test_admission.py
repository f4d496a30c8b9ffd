"""The pure parts of letting a turn in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.admission import NotText, RecentTurns, body_digest
from producers.rate_limit import MAX_BUCKETS, RateLimit
from schemas.ids import TurnId
from schemas.turns import HistoryMessage, TurnRequest


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_digest_does_not_see_how_the_json_was_written() -> None:
    """The order of keys makes no other message; every part of the content does."""
    request = TurnRequest(text="a", metadata={"x": 1, "y": [2]})
    same = TurnRequest(text="a", metadata={"y": [2], "x": 1})
    base = body_digest("c", request)
    assert base == body_digest("c", same)
    others = [
        body_digest("d", request),
        body_digest("c", request.model_copy(update={"text": "b"})),
        body_digest("c", request.model_copy(update={"channel": "slack"})),
        body_digest("c", request.model_copy(update={"metadata": {"x": 1}})),
        body_digest("c", request, [HistoryMessage(role="user", text="before")]),
    ]
    assert len({base, *others}) == 6


@pytest.mark.parametrize("metadata", [{"k": "\ud800"}, {"\udfff": 1}, {"k": float("nan")}, {"k": float("inf")}])
def test_digest_refuses_what_is_no_text(metadata: dict[str, str | float]) -> None:
    """Half characters and numbers without a JSON form are refused before anything is stored."""
    with pytest.raises(NotText):
        body_digest("c", TurnRequest.model_construct(text="a", channel="api", metadata=metadata))


def test_rate_limit_lets_a_burst_in_and_then_its_rate() -> None:
    """A bucket holds a minute's worth and refills evenly; names do not share."""
    clock = Clock()
    limit = RateLimit(per_minute=60, burst=3, clock=clock)
    assert [limit.take("a") for _ in range(3)] == [0, 0, 0]
    assert limit.take("a") == pytest.approx(1.0)
    assert limit.take("b") == 0
    clock.now += 1.0
    assert limit.take("a") == 0
    assert limit.take("a") > 0


@given(st.lists(st.floats(0, 5), max_size=200))
def test_rate_limit_never_gives_more_than_its_rate(pauses: list[float]) -> None:
    """However calls are spread, no more pass than the burst and what refilled."""
    clock = Clock()
    limit = RateLimit(per_minute=60, burst=5, clock=clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += limit.take("a") == 0
    assert passed <= 5 + clock.now + 1e-6


def test_rate_limit_forgets_the_oldest() -> None:
    """Memory is bounded, whatever names come."""
    limit = RateLimit(per_minute=1)
    for n in range(MAX_BUCKETS + 10):
        limit.take(str(n))
    assert len(limit) == MAX_BUCKETS


def test_recent_turns_are_bounded() -> None:
    """The latest accepted turns are known, the oldest forgotten."""
    recent = RecentTurns(most=2)
    for name in ("a", "b", "c"):
        recent.remember(TurnId(name), "t", "c1")
    assert recent.find(TurnId("a")) is None
    found = recent.find(TurnId("c"))
    assert found is not None
    assert (found.tenant, found.conversation_id) == ("t", "c1")
