"""What a drill makes of what its visitors saw, and the words it takes."""

import pytest

from cli.drill import drill
from cli.drill_report import Report, told
from cli.failure import CommandFailed
from cli.state import DEFAULT_STATE
from cli.traffic import Visit


def report(*more: Visit, opened: float | None = 15.0, closed: float | None = 75.0) -> Report:
    """A drill of an outage from second 10 to second 70, of four turns and `more`."""
    visits = (
        Visit("before", 1.0, "answered", first_word=0.4, calls=1, source="primary"),
        Visit("away", 11.0, "answered", first_word=6.6, calls=2, source="fallback", added=6.01),
        Visit("away", 40.0, "answered", first_word=0.5, calls=1, source="fallback"),
        Visit("after", 80.0, "answered", first_word=0.4, calls=1, source="primary"),
        *more,
    )
    return Report(
        drill="drill-1", lane="agent.discovery", visits=visits, away_at=10.0, back_at=70.0,
        opened_at=opened, closed_at=closed,
    )  # fmt: skip


def test_waiting_alone_is_told_as_such() -> None:
    """When everybody was answered the sentence says so, with what the failing model cost at most."""
    done = report()
    assert done.only_latency
    assert done.sentence() == (
        "Visitors noticed nothing but waiting: the failing model added 6.0 s to a turn at most; "
        "up to 6.6 s for the first word during the outage, 400 ms before it."
    )
    assert done.breaker() == "The breaker opened 5.0 s after the model went away and closed 5.0 s after it was back."
    assert (done.parts["away"].calls, done.once_open.calls, done.whole.calls) == (1.5, 1.0, 1.25)
    assert done.parts["away"].by_fallback == 1.0


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        ("truncated", "1 answers cut off"),
        ("bounded", "1 bounded replies"),
        ("refused", "1 messages turned away"),
        ("broken", "1 answers without an end"),
        ("handed_off", "1 that ended otherwise"),
    ],
)
def test_anything_else_is_counted_and_fails_the_drill(ending: str, says: str) -> None:
    """One turn that did not end answered is enough."""
    done = report(Visit("away", 12.0, ending))
    assert not done.only_latency
    assert f"Visitors noticed {says}" in done.sentence()


def test_a_breaker_that_stays_open_fails_the_drill() -> None:
    """Visitors noticed nothing, yet not all is as before; one that never opened is no fault."""
    stuck = report(closed=None)
    assert not stuck.only_latency
    assert "has NOT closed" in stuck.breaker()
    calm = report(opened=None, closed=None)
    assert calm.only_latency
    assert "did not open" in calm.breaker()


def test_the_table_has_a_row_for_each_part() -> None:
    """Every line is as wide as the head, and the turns add up."""
    [head, *rows] = told(report()).split("\n\n")[0].splitlines()
    assert {len(row) for row in rows} == {len(head)}
    assert [row.split()[:2] for row in rows[:4]] == [["before", "1"], ["away", "2"], ["after", "1"], ["all", "4"]]
    assert rows[-1].startswith("away, breaker open")


@pytest.mark.parametrize(
    ("lasting", "rate"), [("soon", "4/s"), ("0s", "4/s"), ("2h", "4/s"), ("60s", "often"), ("60s", "0/s")]
)
def test_words_that_do_not_fit_are_usage(lasting: str, rate: str) -> None:
    """A time or a rate that is none ends with exit status 2 before anything is asked."""
    with pytest.raises(CommandFailed) as caught:
        drill(
            "discovery", lasting=lasting, rate=rate, fault=None, state=DEFAULT_STATE,
            url="http://127.0.0.1:9", key="fl_x", as_json=False,
        )  # fmt: skip
    assert caught.value.status == 2
