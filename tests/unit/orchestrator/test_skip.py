"""Leaving out a router that keeps failing."""

from workers.orchestrator.skip import Skip


def test_failures_in_a_row_begin_a_pause_after_which_one_turn_tries() -> None:
    """During the pause nobody asks; then one does, and its failure begins another pause, its answer ends it."""
    now = 0.0
    skip = Skip(failures=2, seconds=10, clock=lambda: now)
    assert skip.may_ask()
    assert not skip.failed()
    skip.answered()
    assert [skip.failed(), skip.failed()] == [False, True]
    assert not skip.may_ask()
    now = 10.0
    assert skip.may_ask()
    assert not skip.may_ask(), "one tries at a time"
    assert skip.failed()
    assert not skip.may_ask()
    now = 20.0
    assert skip.may_ask()
    skip.not_asked()
    assert skip.may_ask(), "who was left says nothing, and another one may try"
    skip.answered()
    assert skip.may_ask()
    assert skip.may_ask()
