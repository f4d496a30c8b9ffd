"""When each loop of a process last got through: its health, and a number of its own."""

import time
from dataclasses import dataclass

from infra.telemetry import metrics


@dataclass(slots=True)
class _Loop:
    within: float
    passed: float


class Pulse:
    """Watches loops. A pass that found its dependency away is a pass: a restart would not mend that."""

    def __init__(self) -> None:
        self._loops: dict[str, _Loop] = {}

    def watch(self, name: str, *, within: float) -> None:
        """Expect a pass of loop `name` every `within` seconds, from now on."""
        self._loops[name] = _Loop(within, time.monotonic())

    def passed(self, name: str) -> None:
        """Note that a loop got through once more."""
        self._loops[name].passed = time.monotonic()
        metrics.LOOP_LAST_PASS.labels(name).set_to_current_time()

    def health(self) -> dict[str, str | None]:
        """Name each loop, with a sentence for one that makes no progress."""
        now = time.monotonic()
        return {
            name: f"no pass for {now - loop.passed:.0f} s" if now - loop.passed > loop.within else None
            for name, loop in self._loops.items()
        }
