"""The fine-tuned model inside this process: one generation at a time, on a thread beside the event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from typing import Final, TypeAlias

from schemas.completions import (
    BackendFailed,
    CompletionRequest,
    Delta,
    Finish,
    InvalidRequest,
    Overloaded,
    ProviderError,
)
from workers.providers.calling import call
from workers.providers.slot import Generate, Load, ModelSlot, tell

CLOSING_SECONDS: Final = 5.0
"""For the generation under way to see that nobody listens: the time of one token, or of a prompt."""

_Item: TypeAlias = Delta | Finish | ProviderError


class LocalProvider:
    """Streams from a model that `load` brings into this process on the first call.

    A call that finds another one generating waits for half of its first-token clock, then is refused as overloaded:
    its fallback has better uses for the other half.
    """

    name = "local"

    def __init__(self, load: Load, *, load_seconds: float, known_adapters: Iterable[str] = ()) -> None:
        """Load nothing yet; refuse adapters that are not `known_adapters`."""
        self.slot = ModelSlot(load, seconds=load_seconds)
        self._known = frozenset(known_adapters)
        self._turn = asyncio.Lock()

    def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta | Finish]:
        """Stream one completion; see `schemas.completions.Provider`."""
        return call(request, self._answer, provider=self.name)

    async def aclose(self) -> None:
        """Wait a moment for a generation that nobody listens to any more; threads end with the process."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS), self._turn:
                pass

    async def _answer(self, request: CompletionRequest, _: Mapping[str, str]) -> AsyncGenerator[Delta | Finish]:
        if request.adapter is not None and request.adapter not in self._known:
            raise InvalidRequest(f"adapter '{request.adapter}' is in no model of the policy; it was not loaded")
        model = await self.slot.model()
        await self._take_turn(request.clocks.first_token / 2)
        generation = _Generation(model, request, self._turn)
        try:
            while True:
                item = await generation.items.get()
                if isinstance(item, ProviderError):
                    raise item
                yield item
                if isinstance(item, Finish):
                    return
        finally:
            generation.leave()

    async def _take_turn(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise Overloaded(
                f"the local model was busy with another answer for {seconds:g} s; more processes share the work"
            ) from None


class _Generation:
    """One run of the model on its thread. It holds the turn until the thread has really ended."""

    def __init__(self, model: Generate, request: CompletionRequest, turn: asyncio.Lock) -> None:
        self.items: asyncio.Queue[_Item] = asyncio.Queue()
        """What the model gives, ended by a finish or an error."""
        self._model = model
        self._request = request
        self._turn = turn
        self._left = threading.Event()
        self._loop = asyncio.get_running_loop()
        try:
            threading.Thread(target=self._run, name="local-generation", daemon=True).start()
        except RuntimeError:
            turn.release()
            raise Overloaded("this process can start no more threads; look at its limits") from None

    def leave(self) -> None:
        """Nobody listens any more: the model stops after the token it is at."""
        self._left.set()

    def _run(self) -> None:
        tell(self._loop, self._end, self._outcome())

    def _outcome(self) -> Finish | ProviderError:
        try:
            return self._model(self._request, self._emit)
        except ProviderError as error:
            return error
        except BaseException as error:  # noqa: BLE001 - the model is foreign code, and this is its thread
            # Its type alone: what a model library says may quote the prompt.
            return BackendFailed(f"the local model broke while answering ({type(error).__name__}); look at its memory")

    def _emit(self, delta: Delta) -> bool:
        if self._left.is_set():
            return False
        tell(self._loop, self.items.put_nowait, delta)
        return True

    def _end(self, outcome: Finish | ProviderError) -> None:
        self._turn.release()
        self.items.put_nowait(outcome)
