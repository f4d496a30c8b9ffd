"""A full process takes no more."""

import threading

from workers.lanes.door import Capacity


def test_a_full_process_waits_until_a_place_is_free() -> None:
    """The third turn of two waits, and goes on when one ends."""
    capacity = Capacity(2)
    assert capacity.acquire(lambda: False)
    assert capacity.acquire(lambda: False)
    got: list[bool] = []
    waiting = threading.Thread(target=lambda: got.append(capacity.acquire(lambda: False)))
    waiting.start()
    waiting.join(0.1)
    assert got == []
    capacity.release()
    waiting.join(5)
    assert got == [True]


def test_a_stopping_process_takes_nothing() -> None:
    """Full or not, a process that stops refuses, and gives the place it took back."""
    capacity = Capacity(1)
    assert not capacity.acquire(lambda: True)
    assert capacity.acquire(lambda: False)
    assert not capacity.acquire(lambda: True)


def test_places_are_taken_as_far_as_there_are_any() -> None:
    """Asked for five of three without waiting, it gives three, then none, and one again when one is given back."""
    capacity = Capacity(3)
    assert [capacity.acquire_up_to(5), capacity.acquire_up_to(1)] == [3, 0]
    capacity.release()
    assert capacity.acquire_up_to(5) == 1
