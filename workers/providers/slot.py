"""Where the process's own model is: loaded once, and if that fails, never again in this process."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from structlog import get_logger

from infra.telemetry import metrics
from schemas.completions import CompletionRequest, Delta, Finish, LoadFailed

log = get_logger(__name__)

SlotState: TypeAlias = Literal["unloaded", "loading", "ready", "failed"]
"""`ready` and `failed` are absorbing: only the end of the process leaves them."""

SLOT_STATES: Final[tuple[SlotState, ...]] = ("unloaded", "loading", "ready", "failed")

Emit: TypeAlias = Callable[[Delta], bool]
"""Takes text as it is generated, on the generating thread; False: nobody listens any more, stop."""

Generate: TypeAlias = Callable[[CompletionRequest, Emit], Finish]
"""A loaded model. Blocks until the answer is whole or nobody listens. Called by one thread at a time.

Raises:
    ProviderError: a request it cannot serve. Whatever else it raises is its own failure.
"""

Load: TypeAlias = Callable[[], Generate]
"""Brings the model into memory; blocks, and may raise anything."""

_LONGEST_CAUSE: Final = 300


class ModelSlot:
    """Holds the model of this process. Belongs to one event loop; only `load` runs elsewhere, in a thread of its own.

    A failed load stays failed. What failed once (files, memory, packages) would fail again, for minutes, under
    traffic, and each time on some visitor's clock; a process that starts anew tries anew.
    """

    def __init__(self, load: Load, *, seconds: float) -> None:
        """Load nothing yet. `seconds` is how long the load may take."""
        self._load = load
        self._seconds = seconds
        self._decided = asyncio.Event()
        self._model: Generate | None = None
        self._began = 0.0
        self._clock: asyncio.TimerHandle | None = None
        self.state: SlotState = "unloaded"
        self.failure: str | None = None
        """Why the model will not be used by this process; a sentence."""
        self._become("unloaded")

    async def model(self) -> Generate:
        """Return the model. The first caller has it loaded, others meanwhile wait for the same load.

        Raises:
            LoadFailed: it could not be loaded, now or earlier in this process.
        """
        if self.state == "unloaded":
            self._begin()
        await self._decided.wait()
        if self._model is None:
            raise LoadFailed(self.failure)
        return self._model

    def _begin(self) -> None:
        self._become("loading")
        self._began = time.monotonic()
        metrics.LOCAL_MODEL_LOADS.inc()
        log.info("local_model_loading", seconds=self._seconds)
        loop = asyncio.get_running_loop()
        self._clock = loop.call_later(self._seconds, self._fail, f"it was not loaded within {self._seconds:g} s")
        # A daemon: nothing can end a thread that loads, and a process that stops must not wait for it.
        threading.Thread(target=self._run, args=(loop,), name="local-load", daemon=True).start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Load, on the thread, and tell the loop how it went."""
        try:
            model = self._load()
        except BaseException as error:  # noqa: BLE001 - a library's panic or exit fails the load, never the process
            tell(loop, self._fail, _cause(error))
        else:
            tell(loop, self._succeed, model)

    def _succeed(self, model: Generate) -> None:
        if self.state != "loading":
            return  # too late: this process has done without it, and drops it now
        self._model = model
        self._decide("ready")
        log.info("local_model_ready", seconds=round(time.monotonic() - self._began, 3))

    def _fail(self, cause: str) -> None:
        if self.state != "loading":
            return
        self.failure = f"the local model cannot be used by this process: {cause}; mend it, then restart the process"
        self._decide("failed")
        log.error("local_model_failed", why=cause, seconds=round(time.monotonic() - self._began, 3))

    def _decide(self, state: SlotState) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._become(state)
        self._decided.set()

    def _become(self, state: SlotState) -> None:
        self.state = state
        for one in SLOT_STATES:
            metrics.LOCAL_MODEL_STATE.labels(one).set(one == state)


def tell(loop: asyncio.AbstractEventLoop, what: Callable[..., object], *values: object) -> None:
    """Have the loop call `what`, from another thread; a loop that has ended hears nothing."""
    try:
        loop.call_soon_threadsafe(what, *values)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _cause(error: BaseException) -> str:
    """Return why a load failed, on one line; before any turn is seen, an error can quote no visitor."""
    if isinstance(error, LoadFailed):
        return str(error)
    said = " ".join(str(error).split())[:_LONGEST_CAUSE]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
