"""The local provider and its slot, around small models that live in this file."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import aclosing

import pytest
from prometheus_client import REGISTRY

from schemas.completions import (
    BackendFailed,
    CompletionRequest,
    Delta,
    Finish,
    InvalidRequest,
    LoadFailed,
    ModelClocks,
    Overloaded,
    TimedOut,
)
from tests.integration.providers.support import asking, text_of
from workers.providers.local import LocalProvider
from workers.providers.slot import SLOT_STATES, Emit, Generate, Load

WORDS = ("One ", "question ", "first: ", "how many ", "sites?")


class Speaking:
    """A model that says its words, and counts on how many threads at once it was asked to."""

    def __init__(self, *, pause: float = 0.0) -> None:
        self.pause = pause
        self.said = 0
        self.loads = 0
        self.at_once = 0
        self.most_at_once = 0
        self.threads: set[str] = set()

    def load(self) -> Generate:
        self.loads += 1
        self.threads.add(threading.current_thread().name)
        return self.generate

    def generate(self, request: CompletionRequest, emit: Emit) -> Finish:
        self.threads.add(threading.current_thread().name)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for word in WORDS * (request.max_tokens // len(WORDS)):
                time.sleep(self.pause)
                if not emit(Delta(word, (-0.1,))):
                    break
                self.said += 1
        finally:
            self.at_once -= 1
        return Finish("eos_token", input_tokens=7, output_tokens=len(WORDS))


def _provider(load: Load, *, seconds: float = 30) -> LocalProvider:
    return LocalProvider(load, load_seconds=seconds, known_adapters=["discovery"])


def _request(*, words: int = len(WORDS), first_token: float = 10) -> CompletionRequest:
    asked = asking("slm", "discovery", clocks=ModelClocks(10, first_token, 10, 20))
    return CompletionRequest(
        turn_id=asked.turn_id,
        ordinal=1,
        model=asked.model,
        adapter=asked.adapter,
        messages=asked.messages,
        json_schema=asked.json_schema,
        max_tokens=words,
        clocks=asked.clocks,
    )


async def _all(provider: LocalProvider, request: CompletionRequest) -> list[Delta | Finish]:
    return [item async for item in provider.stream(request)]


def _loads_counted() -> float:
    return REGISTRY.get_sample_value("fairlead_local_model_loads_total") or 0.0


def _states() -> dict[str, float | None]:
    return {state: REGISTRY.get_sample_value("fairlead_local_model_state", {"state": state}) for state in SLOT_STATES}


async def test_a_model_is_loaded_on_first_use_and_streams() -> None:
    """The first call loads, beside the event loop; each call streams every word, then the finish."""
    model = Speaking()
    provider = _provider(model.load)
    assert (provider.slot.state, model.loads) == ("unloaded", 0)
    for _ in range(3):
        items = await _all(provider, _request())
        assert text_of(items) == "".join(WORDS)
        assert items[-1] == Finish("eos_token", input_tokens=7, output_tokens=len(WORDS))
    await provider.aclose()
    assert (provider.slot.state, model.loads) == ("ready", 1)
    assert model.threads == {"local-load", "local-generation"}
    assert _states() == {"unloaded": 0, "loading": 0, "ready": 1, "failed": 0}


async def test_concurrent_first_calls_share_one_load() -> None:
    """Twenty calls that find nothing loaded wait for one load, and are all answered by what it brings."""
    model, gate, before = Speaking(), threading.Event(), _loads_counted()

    def load() -> Generate:
        gate.wait(10)
        return model.load()

    provider = _provider(load)
    calls = [asyncio.create_task(_all(provider, _request())) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert provider.slot.state == "loading"
    gate.set()
    assert {text_of(items) for items in await asyncio.gather(*calls)} == {"".join(WORDS)}
    assert (model.loads, _loads_counted() - before, model.most_at_once) == (1, 1, 1)


def _raising(error: BaseException) -> Load:
    def load() -> Generate:
        raise error

    return load


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (_raising(ModuleNotFoundError("No module named 'torch'")), "No module named 'torch'"),
        (_raising(FileNotFoundError("no such file")), "no such file"),
        (_raising(ValueError("weights of another shape")), "weights of another shape"),
        (_raising(MemoryError()), "MemoryError"),
        (_raising(RuntimeError("CUDA error: out of memory\nmore")), "CUDA error: out of memory more"),
        (_raising(LoadFailed("the adapter 'discovery' changes nothing")), "'discovery' changes nothing"),
        (_raising(SystemExit(3)), "SystemExit: 3"),
        (lambda: time.sleep(0.4) or Speaking().generate, "not loaded within 0.1 s"),
    ],
    ids=["package", "file", "weights", "memory", "gpu", "adapter", "exit", "clock"],
)
async def test_a_failed_load_is_failed_for_good(load: Load, why: str) -> None:
    """Whatever way a load fails, those waiting and all later calls fail with the cause, and nothing loads again."""
    begun: list[float] = []

    def counted() -> Generate:
        begun.append(time.monotonic())
        return load()

    provider = _provider(counted, seconds=0.1)
    first = await asyncio.gather(*(_all(provider, _request()) for _ in range(10)), return_exceptions=True)
    await asyncio.sleep(0.5)  # past the end of the load that came too late
    later = await asyncio.gather(*(_all(provider, _request()) for _ in range(10)), return_exceptions=True)
    assert {type(error) for error in first + later} == {LoadFailed}
    assert all(why in str(error) for error in first + later)
    assert (provider.slot.state, len(begun)) == ("failed", 1)
    assert why in (provider.slot.failure or "")
    assert _states() == {"unloaded": 0, "loading": 0, "ready": 0, "failed": 1}
    await provider.aclose()


async def test_a_caller_who_leaves_does_not_stop_the_load() -> None:
    """A turn whose clock runs out while the model loads fails by its clock, and the load serves the next turn."""
    model, gate = Speaking(), threading.Event()

    def load() -> Generate:
        gate.wait(10)
        return model.load()

    provider = _provider(load)
    with pytest.raises(TimedOut, match="first token"):
        await _all(provider, _request(first_token=0.05))
    gate.set()
    assert text_of(await _all(provider, _request())) == "".join(WORDS)
    assert model.loads == 1


async def test_a_busy_model_is_overloaded_soon() -> None:
    """A call that finds another one generating gives up at half its first-token clock and leaves that one alone."""
    model = Speaking(pause=0.01)
    provider = _provider(model.load)
    long = asyncio.create_task(_all(provider, _request(words=100)))
    await _until(lambda: model.said > 0)
    with pytest.raises(Overloaded):
        await _all(provider, _request(first_token=0.1))
    assert text_of(await long) == "".join(WORDS * 20)
    assert model.most_at_once == 1


async def test_a_consumer_who_leaves_stops_the_model() -> None:
    """The model stops at the token it is at, and only then the next call gets its turn."""
    model = Speaking(pause=0.02)
    provider = _provider(model.load)
    async with aclosing(provider.stream(_request(words=1000))) as items:
        await anext(items)
    said = model.said
    assert text_of(await _all(provider, _request())) == "".join(WORDS)
    assert model.said <= said + 1 + len(WORDS)
    assert model.most_at_once == 1
    await provider.aclose()


async def test_a_clock_that_runs_out_in_mid_answer_stops_the_model() -> None:
    """A model that says nothing for longer than the clock between tokens is left, and stops when it notices."""
    model = Speaking(pause=0.2)
    provider = _provider(model.load)
    slow = asking("slm", "discovery", clocks=ModelClocks(10, 10, 0.05, 20))
    with pytest.raises(TimedOut, match="next token"):
        await _all(provider, slow)
    await provider.aclose()
    assert model.at_once == 0


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (RuntimeError("the visitor wrote: secret"), BackendFailed, "RuntimeError"),
        (SystemExit(1), BackendFailed, "SystemExit"),
        (InvalidRequest("no room"), InvalidRequest, "no room"),
    ],
)
async def test_a_model_that_breaks(error: BaseException, kind: type[Exception], says: str) -> None:
    """What a model raises fails that call in our words, without its own, and the next call is tried."""
    calls: list[int] = []

    def generate(request: CompletionRequest, emit: Emit) -> Finish:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return Speaking().generate(request, emit)

    provider = _provider(lambda: generate)
    with pytest.raises(kind, match=says) as failed:
        await _all(provider, _request())
    assert "secret" not in str(failed.value)
    assert text_of(await _all(provider, _request())) == "".join(WORDS)


async def test_an_adapter_nobody_loaded_is_refused() -> None:
    """A request for an adapter that the policy does not have fails without loading anything."""
    model = Speaking()
    with pytest.raises(InvalidRequest, match="'typo'"):
        await _all(_provider(model.load), asking("slm", "typo"))
    assert model.loads == 0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the model is on a thread and has no event
            await asyncio.sleep(0.005)
