"""The control routes and the log."""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from simulators.answers import tokenise
from simulators.testing import SimulatorHandle, running

Raw = Callable[..., Coroutine[None, None, Any]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
ChatBody = Callable[..., dict[str, Any]]

CHAT = "/v1/chat/completions"


async def test_a_fault_is_set_shown_and_used_up(openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody) -> None:
    """`times` counts down with each request, and then the server is well again."""
    put = await raw(openai_sim, "PUT", "/_control", {"fault": "status", "status": 503, "times": 2})
    statuses = [(await raw(openai_sim, "POST", CHAT, chat_body())).status for _ in range(3)]
    shown = await raw(openai_sim, "GET", "/_control")

    assert put.status == 200
    assert json.loads(put.body) == {"fault": "status", "status": 503, "times": 2}
    assert statuses == [503, 503, 200]
    assert json.loads(shown.body) == {"fault": "none"}


async def test_refused_requests_use_no_fault_up(openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody) -> None:
    """A request that is wrong in itself does not count as one of the `times`."""
    openai_sim.control(fault="status", status=503, times=1)

    wrong = await raw(openai_sim, "POST", CHAT, {"model": "nobody", "messages": [{"role": "user"}]})
    right = await raw(openai_sim, "POST", CHAT, chat_body())

    assert (wrong.status, right.status) == (404, 503)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        {"fault": "explode"},
        {"after_tokens": -1},
        {"fault": "status", "status": 200},
        {"times": 0},
        {"times": True},
        {"inter_token_ms": "fast"},
        {"tokens": 0},
        {"surprise": 1},
        {"confidence": 0},
        {"fault": "cut", "before_headers": True},
    ],
)
async def test_a_bad_control_body_is_refused_with_what_is_allowed(
    openai_sim: SimulatorHandle, raw: Raw, body: object
) -> None:
    """A control body that is not understood is a 422 that says what is allowed, and changes nothing."""
    response = await raw(openai_sim, "PUT", "/_control", body)

    assert response.status == 422
    assert "Allowed is a JSON object with fault" in json.loads(response.body)["error"]
    assert json.loads((await raw(openai_sim, "GET", "/_control")).body)["fault"] == "none"


async def test_the_log_tells_turns_apart(openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody) -> None:
    """Requests are listed with turn and attempt, filtered by turn, counted by turn, and forgotten on DELETE."""
    for turn, attempt in (("a", "1"), ("b", "1"), ("a", "2")):
        await raw(openai_sim, "POST", CHAT, chat_body(), X_Fairlead_Turn=turn, X_Fairlead_Attempt=attempt)
    await raw(openai_sim, "POST", CHAT, chat_body())

    everything = json.loads((await raw(openai_sim, "GET", "/_control/requests")).body)
    of_a = json.loads((await raw(openai_sim, "GET", "/_control/requests?turn=a")).body)
    counts = json.loads((await raw(openai_sim, "GET", "/_control/counts")).body)
    cleared = await raw(openai_sim, "DELETE", "/_control/requests")

    assert [call["turn"] for call in everything] == ["a", "b", "a", None]
    assert [(call["turn"], call["attempt"]) for call in of_a] == [("a", "1"), ("a", "2")]
    assert counts == {"a": 2, "b": 1}
    assert cleared.status == 204
    assert json.loads((await raw(openai_sim, "GET", "/_control/requests")).body) == []
    assert everything[0] | {"start": 0} == {
        "turn": "a",
        "routing": None,
        "attempt": "1",
        "path": CHAT,
        "model": "frontier",
        "adapter": None,
        "stream": False,
        "start": 0,
        "status": 200,
        "tokens": everything[0]["tokens"],
        "outcome": "answered",
        "client_hung_up": False,
    }


async def test_tokens_sets_the_length_of_an_answer(openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody) -> None:
    """`tokens` makes an answer exactly that long, and JSON stays JSON."""
    openai_sim.control(tokens=1000)

    plain = await raw(openai_sim, "POST", CHAT, chat_body())
    wanted = chat_body(model="discovery", response_format={"type": "json_object"})
    structured = json.loads((await raw(openai_sim, "POST", CHAT, wanted)).body)

    assert [call["tokens"] for call in openai_sim.requests()] == [1000, 1000]
    assert plain.status == 200
    assert json.loads(structured["choices"][0]["message"]["content"])["html_response"].startswith("<p>Each")


async def test_confidence_sets_the_log_probabilities(tgi_sim: SimulatorHandle, raw: Raw) -> None:
    """A model is nearly sure of its first tokens, unless the control says how sure it is of all."""
    asked = {"inputs": "hello", "parameters": {"details": True, "top_n_tokens": 3}}
    usual = json.loads((await raw(tgi_sim, "POST", "/generate", asked)).body)["details"]["tokens"]
    tgi_sim.control(confidence=0.5)
    unsure = json.loads((await raw(tgi_sim, "POST", "/generate", asked)).body)["details"]["tokens"]
    streamed = (await raw(tgi_sim, "POST", "/generate_stream", asked)).chunks[0]

    assert all(-0.02 <= token["logprob"] < 0 for token in usual[:16])
    assert {token["logprob"] for token in unsure if not token["special"]} == {-0.6931}
    assert [top["logprob"] for top in json.loads(streamed[6:])["top_tokens"]] == [-0.6931, -3.6931, -4.6931]


async def test_malformed_begins_as_json(openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody) -> None:
    """With `after_tokens` a malformed answer is the right JSON so far, and then never becomes JSON again."""
    wanted = chat_body(response_format={"type": "json_object"})
    right = json.loads((await raw(openai_sim, "POST", CHAT, wanted)).body)["choices"][0]["message"]["content"]
    openai_sim.control(fault="malformed", after_tokens=20)
    wrong = json.loads((await raw(openai_sim, "POST", CHAT, wanted)).body)["choices"][0]["message"]["content"]

    kept = "".join(tokenise(right)[:20])
    assert kept.startswith('{"dimension": ')
    assert wrong.startswith(kept)
    with pytest.raises(json.JSONDecodeError):
        json.loads(wrong)


async def test_a_slow_server_is_slow_for_everyone(
    openai_sim: SimulatorHandle, raw: Raw, chat_body: ChatBody, until: Until
) -> None:
    """`slow` stretches the time to the first token; until then the call is running and has sent nothing."""
    openai_sim.control(fault="slow", first_token_ms=60_000)
    call = asyncio.create_task(raw(openai_sim, "POST", CHAT, chat_body(stream=True)), name="slow call")

    await until(lambda: [one["status"] for one in openai_sim.requests()] == [200])
    now = openai_sim.requests()[0]
    call.cancel()
    await asyncio.wait([call])

    assert (now["outcome"], now["tokens"]) == ("running", 0)
    await until(lambda: openai_sim.requests()[0]["client_hung_up"])


async def test_three_hundred_streams_at_once() -> None:
    """Three hundred clients stream at the same time, and each gets its whole answer."""
    async with (
        asyncio.timeout(60),
        running("openai", first_token_ms=50, inter_token_ms=10) as sim,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        sim.control(tokens=60)

        async def read(turn: int) -> bytes:
            body = {"model": "frontier", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
            headers = {"X-Fairlead-Turn": str(turn)}
            async with session.post(sim.base_url + CHAT, json=body, headers=headers) as response:
                return await response.read()

        answers = await asyncio.gather(*(read(turn) for turn in range(300)))

    assert {answer.count(b"data: ") for answer in answers} == {63}
    assert all(answer.endswith(b"data: [DONE]\n\n") for answer in answers)
    assert {call["outcome"] for call in sim.requests()} == {"answered"}
    assert set(sim.counts().values()) == {1}
    assert len(sim.counts()) == 300


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_announces_its_address_and_stops_on_a_signal(
    tmp_path: Path, sign: signal.Signals, until: Until
) -> None:
    """`run` writes its base URL to the port file, serves, and leaves with code 0 when told, streams or not."""
    port_file = tmp_path / "address"
    program = (
        "import sys, pathlib; from simulators.process import run; "
        "run('tgi', port_file=pathlib.Path(sys.argv[1]), first_token_ms=0, inter_token_ms=0)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(port_file))
    try:
        await until(port_file.exists)
        base_url = port_file.read_text().strip()
        async with aiohttp.ClientSession() as session, session.get(f"{base_url}/health") as response:
            assert response.status == 200
        writer = await _open_a_stream(base_url)
    finally:
        process.send_signal(sign)
        code = await process.wait()
    writer.close()

    assert base_url.startswith("http://127.0.0.1:")
    assert code == 0


async def _open_a_stream(base_url: str) -> asyncio.StreamWriter:
    """Make the simulator hang in a stream, and stay connected."""
    address = urlsplit(base_url)
    async with aiohttp.ClientSession() as session:
        await session.put(f"{base_url}/_control", json={"fault": "hang", "after_tokens": 1})
    body = b'{"inputs":"hello"}'
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"POST /generate_stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    await reader.readuntil(b'"index":1')
    return writer
