"""What every provider of a model server keeps to, against the simulators."""

import asyncio
import json
from dataclasses import replace

import pytest

from schemas.completions import (
    BackendFailed,
    Delta,
    Finish,
    Incomplete,
    InvalidRequest,
    ModelClocks,
    Overloaded,
    ProviderError,
    TimedOut,
    Unavailable,
)
from simulators.testing import FaultFields, SimulatorHandle
from tests.integration.providers.conftest import Way
from tests.integration.providers.support import TURN, listen, text_of, until

SHORT = ModelClocks(connect=2, first_token=0.3, between_tokens=0.2, total=5)


async def _whole(way: Way) -> str:
    return text_of([item async for item in way.provider.stream(way.asking())])


async def test_whole_answer(way: Way, simulator: SimulatorHandle) -> None:
    """A whole answer is JSON of the schema, ends with one finish with its usage, and took one request."""
    *deltas, finish = [item async for item in way.provider.stream(way.asking(ordinal=2))]
    assert isinstance(finish, Finish)
    assert finish.reason == ("eos_token" if way.kind == "tgi" else "stop")
    assert finish.output_tokens
    assert finish.input_tokens
    assert all(isinstance(delta, Delta) and delta.text for delta in deltas)
    assert list(json.loads(text_of(deltas))) == ["dimension", "html_response"]
    (call,) = simulator.requests()
    assert (call["turn"], call["attempt"], call["outcome"]) == (TURN, "2", "answered")
    assert call["adapter" if way.kind == "tgi" else "model"] == (way.adapter or way.model)


async def test_logprobs(way: Way, simulator: SimulatorHandle) -> None:
    """The discovery model's tokens come with their log-probabilities, none missing; the frontier's without."""
    *deltas, _ = [item async for item in way.provider.stream(way.asking())]
    scores = [score for delta in deltas if isinstance(delta, Delta) for score in delta.logprobs]
    tokens = simulator.requests()[0]["tokens"]
    assert len(scores) == (0 if way.kind == "frontier" else tokens)
    assert all(-20 < score <= 0 for score in scores)


async def test_paced_tokens_come_as_they_are_made(way: Way, simulator: SimulatorHandle) -> None:
    """Deltas arrive while the model still writes, not with the end of the answer."""
    simulator.control(fault="slow", first_token_ms=0, inter_token_ms=8, tokens=30)
    seen = [simulator.requests()[0]["tokens"] async for _ in way.provider.stream(way.asking())]
    assert len(seen) > 5
    assert seen[0] < seen[-1]


async def test_length(way: Way, simulator: SimulatorHandle) -> None:
    """An answer cut by its token limit says so."""
    *_, finish = [item async for item in way.provider.stream(replace(way.asking(), max_tokens=16))]
    assert isinstance(finish, Finish)
    assert finish.reason == "length"
    assert simulator.requests()[0]["tokens"] == 16


STATUSES: list[tuple[int, type[ProviderError]]] = [
    (404, InvalidRequest),
    (424, BackendFailed),
    (429, Overloaded),
    (500, BackendFailed),
]


@pytest.mark.parametrize(("status", "kind_of_error"), STATUSES)
async def test_statuses(way: Way, simulator: SimulatorHandle, status: int, kind_of_error: type[ProviderError]) -> None:
    """An HTTP error is its one kind of error after exactly one request, and the next call works."""
    await _fails(way, simulator, kind_of_error, "", {"fault": "status", "status": status})
    assert await _whole(way)


async def test_503(way: Way, simulator: SimulatorHandle) -> None:
    """503 is a server that is not ready for TGI, and a full one for those that say so."""
    kind_of_error = Unavailable if way.kind == "tgi" else Overloaded
    await _fails(way, simulator, kind_of_error, "", {"fault": "status", "status": 503})


@pytest.mark.parametrize("status", [401, 403])
async def test_a_bad_key(way: Way, simulator: SimulatorHandle, status: int) -> None:
    """A refused key is an invalid request whose message says to look at the key."""
    simulator.control(fault="status", status=status, times=1)
    with pytest.raises(InvalidRequest, match="look at the key"):
        await _whole(way)


EVENTS: list[tuple[int, type[ProviderError], type[ProviderError]]] = [
    (422, InvalidRequest, InvalidRequest),
    (424, BackendFailed, BackendFailed),
    (429, Overloaded, Overloaded),
    (500, Incomplete, BackendFailed),
    (503, Unavailable, Overloaded),
]


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize(("status", "of_tgi", "of_openai"), EVENTS)
async def test_error_events(
    way: Way,
    simulator: SimulatorHandle,
    status: int,
    of_tgi: type[ProviderError],
    of_openai: type[ProviderError],
    after: int,
) -> None:
    """An error inside the stream is its one kind of error, after exactly the text before it."""
    whole = await _tokens(way, simulator, after)
    kind_of_error = of_tgi if way.kind == "tgi" else of_openai
    await _fails(way, simulator, kind_of_error, whole, {"fault": "event", "status": status, "after_tokens": after})


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize("fault", ["cut", "close"])
async def test_broken_streams(way: Way, simulator: SimulatorHandle, fault: str, after: int) -> None:
    """A stream that ends early, cleanly or by a reset, is incomplete after exactly the text before it."""
    whole = await _tokens(way, simulator, after)
    fields: FaultFields = {"fault": "cut" if fault == "cut" else "close", "after_tokens": after}
    await _fails(way, simulator, Incomplete, whole, fields)


async def test_a_server_that_hangs_up_on_the_request(way: Way, simulator: SimulatorHandle) -> None:
    """A connection that closes before any status is a server that does not answer."""
    await _fails(way, simulator, Unavailable, "", {"fault": "close", "before_headers": True})


@pytest.mark.parametrize(
    ("fields", "clock"),
    [
        ({"fault": "hang", "before_headers": True}, "first token"),
        ({"fault": "hang", "after_tokens": 0}, "first token"),
        ({"fault": "hang", "after_tokens": 5}, "next token"),
    ],
    ids=["before-headers", "before-first-token", "after-five"],
)
async def test_silence(way: Way, simulator: SimulatorHandle, fields: FaultFields, clock: str) -> None:
    """A server that falls silent is timed out under the clock's name, and sees the hang-up."""
    whole = await _tokens(way, simulator, fields.get("after_tokens", 0))
    error = await _fails(way, simulator, TimedOut, whole, fields, clocks=SHORT)
    assert clock in str(error)
    await _hung_up(simulator)


async def test_slow_but_steady(way: Way, simulator: SimulatorHandle) -> None:
    """An answer longer than its first-token and next-token clocks together is fine as long as tokens come."""
    simulator.control(fault="slow", first_token_ms=0, inter_token_ms=25, tokens=30)
    items = [item async for item in way.provider.stream(way.asking(clocks=SHORT))]
    assert isinstance(items[-1], Finish)


async def test_the_whole_answers_clock(way: Way, simulator: SimulatorHandle) -> None:
    """An answer that never ends is ended by the clock of the whole answer."""
    limits = ModelClocks(connect=2, first_token=5, between_tokens=5, total=0.3)
    fields: FaultFields = {"fault": "slow", "inter_token_ms": 20, "tokens": 200}
    simulator.control(**fields)
    with pytest.raises(TimedOut, match="whole answer"):
        await listen(way.provider.stream(way.asking(clocks=limits)), [])
    await _hung_up(simulator)


async def test_prose_instead_of_json(way: Way, simulator: SimulatorHandle) -> None:
    """A model that breaks its grammar is not the client's affair: the text comes as it is, whole."""
    simulator.control(fault="malformed", after_tokens=5)
    items = [item async for item in way.provider.stream(way.asking())]
    assert isinstance(items[-1], Finish)
    with pytest.raises(json.JSONDecodeError):
        json.loads(text_of(items))


@pytest.mark.parametrize("leave", ["break", "close", "cancel"])
async def test_leaving_early(way: Way, simulator: SimulatorHandle, leave: str) -> None:
    """However a consumer leaves, the server sees the hang-up at once, having been asked once."""
    simulator.control(fault="hang", after_tokens=5)
    if leave == "cancel":
        await _cancelled(way)
    elif leave == "close":
        stream = way.provider.stream(way.asking())
        await anext(aiter(stream))
        await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - a generator, wider than its port
    else:
        async for _ in way.provider.stream(way.asking()):
            break
    await _hung_up(simulator)
    assert simulator.counts() == {TURN: 1}
    simulator.control(fault="none")
    assert await _whole(way)


async def test_calls_do_not_disturb_each_other(way: Way, simulator: SimulatorHandle) -> None:
    """Fifty calls at once give fifty times the same answer in fifty requests."""
    simulator.control(fault="slow", first_token_ms=5, inter_token_ms=1, tokens=30)
    answers = await asyncio.gather(*(_whole(way) for _ in range(50)))
    assert len(set(answers)) == 1
    assert simulator.counts() == {TURN: 50}


async def _cancelled(way: Way) -> None:
    async def hear() -> None:
        async for _ in way.provider.stream(way.asking()):
            started.set()

    started = asyncio.Event()
    task = asyncio.create_task(hear())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _hung_up(simulator: SimulatorHandle) -> None:
    await until(lambda: simulator.requests()[-1]["client_hung_up"], what="the server saw the hang-up")


async def _tokens(way: Way, simulator: SimulatorHandle, count: int) -> str:
    """Return the text of an answer's first tokens, learnt from an answer cut there by its length."""
    if not count:
        return ""
    request = replace(way.asking(), max_tokens=count)
    text = text_of([item async for item in way.provider.stream(request)])
    simulator.clear()
    return text


async def _fails(
    way: Way,
    simulator: SimulatorHandle,
    kind_of_error: type[ProviderError],
    text_before: str,
    fields: FaultFields,
    *,
    clocks: ModelClocks | None = None,
) -> ProviderError:
    """Make one call under a fault; return its error, after checking its class, what came before, and the count."""
    simulator.control(**fields | {"times": 1})
    request = way.asking() if clocks is None else way.asking(clocks=clocks)
    got: list[Delta | Finish] = []
    with pytest.raises(ProviderError) as failed:
        await listen(way.provider.stream(request), got)
    assert type(failed.value) is kind_of_error
    assert text_of(got) == text_before
    assert not any(isinstance(item, Finish) for item in got)
    assert simulator.counts() == {TURN: 1}
    return failed.value
