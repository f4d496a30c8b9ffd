"""Who called, how far the answer came, how it ended."""

import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias, TypedDict

Outcome: TypeAlias = Literal[
    "running", "answered", "refused", "status", "event", "cut", "close", "hang", "malformed", "hung_up"
]


class CallRecord(TypedDict):
    """One call as the control route shows it. `start` is in epoch seconds."""

    turn: str | None
    attempt: str | None
    routing: str | None
    path: str
    model: str | None
    adapter: str | None
    stream: bool
    start: float
    status: int | None
    tokens: int
    outcome: Outcome
    client_hung_up: bool


@dataclass(slots=True)
class Call:
    """One call for an answer, kept up to date while it runs."""

    turn: str | None
    attempt: str | None
    path: str
    routing: str | None = None
    """The turn that is to be routed, where that is what is asked; then `turn` is None, for no answer is."""
    model: str | None = None
    adapter: str | None = None
    stream: bool = False
    start: float = field(default_factory=time.time)
    status: int | None = None
    tokens: int = 0
    outcome: Outcome = "running"
    client_hung_up: bool = False

    def record(self) -> CallRecord:
        """The call as plain values."""
        return CallRecord(**asdict(self))


class Journal:
    """The latest calls, oldest first; past `most` of them the oldest are forgotten."""

    def __init__(self, *, most: int = 200_000) -> None:
        self._most = most
        self._calls: deque[Call] = deque()
        self._by_turn: dict[str, deque[Call]] = {}

    def add(self, call: Call) -> None:
        """Write down a call that just arrived."""
        if len(self._calls) >= self._most:
            self._forget_oldest()
        self._calls.append(call)
        if call.turn is not None:
            self._by_turn.setdefault(call.turn, deque()).append(call)

    def records(self, turn: str | None = None) -> list[CallRecord]:
        """All calls, or those of one turn, oldest first."""
        calls = self._calls if turn is None else self._by_turn.get(turn, ())
        return [call.record() for call in calls]

    def counts(self) -> dict[str, int]:
        """How many calls each turn made."""
        return {turn: len(calls) for turn, calls in self._by_turn.items()}

    def clear(self) -> None:
        """Forget every call; those still running are not written again."""
        self._calls.clear()
        self._by_turn.clear()

    def _forget_oldest(self) -> None:
        oldest = self._calls.popleft()
        if oldest.turn is not None:
            calls = self._by_turn[oldest.turn]
            calls.popleft()
            if not calls:
                del self._by_turn[oldest.turn]
