"""A simulator inside the test's own event loop."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import TypedDict, Unpack

from simulators.control import CONTROL, JOURNAL, Control, Fault, FaultKind
from simulators.journal import CallRecord, Journal
from simulators.pacing import Pacing
from simulators.process import Dialect, create_app, serving


class FaultFields(TypedDict, total=False):
    """What `PUT /_control` takes."""

    fault: FaultKind
    status: int
    after_tokens: int
    first_token_ms: float
    inter_token_ms: float
    times: int
    tokens: int
    confidence: float
    before_headers: bool
    says: str


class SimulatorHandle:
    """A running simulator: where it is, what it shall do next, what was asked of it."""

    def __init__(self, *, base_url: str, control: Control, journal: Journal) -> None:
        self.base_url = base_url
        self._control = control
        self._journal = journal

    def control(self, **fields: Unpack[FaultFields]) -> None:
        """Set the fault for the next requests, as `PUT /_control` does; pydantic raises on a bad one."""
        self._control.set(Fault.model_validate(fields))

    def requests(self, turn: str | None = None) -> list[CallRecord]:
        """The calls so far, or those of one turn, oldest first."""
        return self._journal.records(turn)

    def counts(self) -> dict[str, int]:
        """How many calls each turn made."""
        return self._journal.counts()

    def clear(self) -> None:
        """Forget the calls so far."""
        self._journal.clear()


@contextlib.asynccontextmanager
async def running(
    dialect: Dialect,
    *,
    first_token_ms: float = 0,
    inter_token_ms: float = 0,
    models: Sequence[str] | None = None,
) -> AsyncGenerator[SimulatorHandle]:
    """Run a simulator on a free port of 127.0.0.1 while the context lasts; as fast as it can unless paced."""
    app = create_app(
        dialect, pacing=Pacing(first_token_ms=first_token_ms, inter_token_ms=inter_token_ms), models=models
    )
    async with serving(app) as base_url:
        yield SimulatorHandle(base_url=base_url, control=app[CONTROL], journal=app[JOURNAL])
