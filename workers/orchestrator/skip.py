"""Skipping a router that keeps failing, so that its outage costs its deadline a few times and not every turn."""

import time
from collections.abc import Callable


class Skip:
    """Failures in a row begin a pause; after it one turn at a time tries again. Known to this process only."""

    def __init__(self, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Pause for `seconds` after so many `failures` in a row."""
        self._most = failures
        self._seconds = seconds
        self._clock = clock
        self._failed = 0
        self._until = 0.0
        self._trying = False

    def may_ask(self) -> bool:
        """Whether a turn may ask; who may, has to say how it went."""
        if self._failed < self._most:
            return True
        if self._trying or self._clock() < self._until:
            return False
        self._trying = True
        return True

    def answered(self) -> None:
        """It answered: ask it again as before."""
        self._failed = 0
        self._trying = False

    def failed(self) -> bool:
        """It failed; return whether that begins a pause, the first or another one."""
        self._failed += 1
        begins = self._failed == self._most or self._trying
        self._trying = False
        if begins:
            self._until = self._clock() + self._seconds
        return begins

    def not_asked(self) -> None:
        """It was left before it could answer: that says nothing."""
        self._trying = False
