"""Named places at which a process can be made to die, so that the fault suite can say where it died.

`FAIRLEAD_CRASH=after_claim:3` ends the process the third time it comes to `after_claim`, at once and without a word
to anybody, with status 137. Without the variable, which no installation sets, a place is one comparison.
"""

import os
import threading
from dataclasses import dataclass
from typing import Final, Literal, get_args

VARIABLE: Final = "FAIRLEAD_CRASH"
STATUS: Final = 137
"""What a shell reports of a process that was killed."""

CrashPoint = Literal[
    "after_produce_before_202",
    "after_ledger_before_commit",
    "after_preparing",
    "after_route_before_hint",
    "after_claim",
    "after_rescue_claim",
    "after_arm",
    "after_request_sent",
    "after_fb_latch",
    "before_latch",
    "after_latch_before_chunk1",
    "mid_stream",
    "after_eos",
    "before_final",
    "after_final_before_publish",
    "drain_mid_stream",
    "after_letter",
    "letter_after_route",
    "after_sealing",
    "after_seal",
    "outbox_after_send",
    "replay_after_insert",
]
"""In the order in which a turn meets them."""

CRASH_POINTS: Final[tuple[CrashPoint, ...]] = get_args(CrashPoint)
_BY_NAME: Final[dict[str, CrashPoint]] = {str(point): point for point in CRASH_POINTS}


class UnknownCrashPoint(ValueError):
    """The variable names no place. The message lists those there are."""


class Crash:
    """The one place at which this process shall die, and how often it may still come there."""

    def __init__(self, point: CrashPoint, nth: int) -> None:
        self.point = point
        self._left = nth
        self._lock = threading.Lock()

    @classmethod
    def planned(cls, value: str) -> "Crash | None":
        """Read the variable's value, `NAME:NTH`; empty plans nothing.

        Raises:
            UnknownCrashPoint: there is no such place, or NTH is no number from 1 on.
        """
        name, _, nth = value.partition(":")
        point = _BY_NAME.get(name)
        if not value:
            return None
        if point is None or not nth.isdecimal() or int(nth) < 1:
            raise UnknownCrashPoint(
                f"{VARIABLE} is {value!r}, but must be NAME:NTH with NTH from 1 on and NAME one of "
                f"{', '.join(CRASH_POINTS)}; unset it where nobody is meant to crash."
            )
        return cls(point, int(nth))

    def comes(self, point: CrashPoint) -> bool:
        """Count an arrival; True the time that is meant."""
        if point != self.point:
            return False
        with self._lock:
            self._left -= 1
            return self._left == 0


@dataclass(slots=True)
class _Plan:
    crash: Crash | None = None


_plan: Final = _Plan()


def arm() -> None:
    """Take up what the environment plans for this process; called once, at its start.

    Raises:
        UnknownCrashPoint: the variable names no place.
    """
    _plan.crash = Crash.planned(os.environ.get(VARIABLE, ""))


def reach(point: CrashPoint) -> None:
    """Die here if this is the place and the time."""
    if _plan.crash is not None and _plan.crash.comes(point):
        os._exit(STATUS)
