"""Where a process's CPU goes, seen a thousand times a second: counts no calls, so that it slows none of them."""

import signal
from collections import Counter
from types import FrameType
from typing import Final

EVERY: Final = 0.001
"""CPU seconds of the process between two looks."""


class Sampler:
    """Looks at the main thread while the context lasts. Time in C counts for the Python function that called it."""

    def __init__(self) -> None:
        self._own: Counter[str] = Counter()
        self._within: Counter[str] = Counter()

    def __enter__(self) -> "Sampler":
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def dearest(self, count: int) -> dict[str, dict[str, float]]:
        """Return the functions with the largest shares: `own` code, and `within` with all they call."""
        total = max(1, sum(self._own.values()))
        return {
            "own": {name: round(seen / total, 4) for name, seen in self._own.most_common(count)},
            "within": {name: round(seen / total, 4) for name, seen in self._within.most_common(count)},
        }

    def _look(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self._own[_name(frame)] += 1
        seen: set[str] = set()
        at: FrameType | None = frame
        while at is not None:
            seen.add(_name(at))
            at = at.f_back
        self._within.update(seen)


def _name(frame: FrameType) -> str:
    code = frame.f_code
    return f"{'/'.join(code.co_filename.split('/')[-2:])}:{code.co_qualname}"
