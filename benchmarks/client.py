"""What one streamed model call of 50 chunks costs: our clients, the official object streams, a bare loop.

Run `python -m benchmarks.client`; prints one JSON line. CPU milliseconds of this process per call, medians of
interleaved rounds, against the simulators in processes of their own. `burst` is an answer that arrives at once,
`paced` one token every 4 ms on ten calls at a time, as a worker meets them.
"""

import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import httpx2
import uvloop
from huggingface_hub import AsyncInferenceClient, TextGenerationInputGrammarType
from openai import AsyncOpenAI, DefaultAioHttpClient

from infra.policy import load_policy
from infra.settings import Settings
from schemas.completions import CompletionRequest, Delta, Finish, Message, ModelClocks, Provider
from schemas.ids import TurnId
from simulators.process import Dialect
from simulators.process import run as run_simulator
from workers.providers.backends import Backends
from workers.providers.chatml import chatml
from workers.providers.reading import ChatChunks, read_answer
from workers.providers.wire import Wire, WireTransport, reply_of

CHUNKS = 50
ROUNDS = 7
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"dimension": {"type": "string"}, "html_response": {"type": "string"}},
    "required": ["dimension", "html_response"],
    "additionalProperties": False,
}
MESSAGES = (
    Message("system", "You are the discovery agent. Ask one question at a time and answer in JSON. " * 12),
    Message("user", "We have three sites and too much overtime. What would this cost us?"),
)
CHAT = [{"role": m.role, "content": m.content} for m in MESSAGES]
CLOCKS = ModelClocks(connect=2, first_token=10, between_tokens=8, total=60)

Pace = Literal["burst", "paced"]
CALLS: dict[Pace, tuple[int, int]] = {"burst": (30, 1), "paced": (30, 10)}
"""Calls a round, and how many at a time."""
Way = Callable[[], Awaitable[int]]
"""Makes one call and returns how many characters came."""


def run() -> dict[str, object]:
    """Measure and return the figures."""
    return uvloop.run(_measure())


async def _measure() -> dict[str, object]:
    async with AsyncExitStack() as stack:
        tgi = await stack.enter_async_context(_simulator("tgi"))
        openai = await stack.enter_async_context(_simulator("openai"))
        ways = await _ways(stack, tgi, openai)
        figures: dict[str, dict[str, float]] = {}
        pace: Pace
        for pace in ("burst", "paced"):
            await _set_pace((tgi, openai), 4 if pace == "paced" else 0)
            figures[pace] = await _rounds(ways, *CALLS[pace])
    return {
        "name": "client",
        "chunks": CHUNKS,
        "rounds": ROUNDS,
        "cpu_ms_per_call": figures,
        "ratios": {pace: _ratios(costs) for pace, costs in figures.items()},
    }


def _ratios(costs: dict[str, float]) -> dict[str, float]:
    pairs = {
        "openai_ours_to_bare": ("openai_ours", "openai_bare"),
        "openai_peer_to_ours": ("openai_objects", "openai_ours"),
        "openai_request_to_ours": ("openai_request", "openai_ours"),
        "tgi_ours_to_bare": ("tgi_ours", "tgi_bare"),
        "tgi_peer_to_ours": ("tgi_objects", "tgi_ours"),
    }
    return {name: round(costs[one] / costs[other], 2) for name, (one, other) in pairs.items()}


async def _rounds(ways: dict[str, Way], calls: int, at_a_time: int) -> dict[str, float]:
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            costs[name].append(await _cost(way, calls, at_a_time))
    return {name: round(statistics.median(spent[1:]), 3) for name, spent in costs.items()}


async def _cost(way: Way, calls: int, at_a_time: int) -> float:
    started = time.process_time()
    for _ in range(calls // at_a_time):
        for characters in await asyncio.gather(*(way() for _ in range(at_a_time))):
            assert characters > CHUNKS, "an answer did not arrive whole"
    return (time.process_time() - started) / calls * 1000


async def _ways(stack: AsyncExitStack, tgi: str, openai: str) -> dict[str, Way]:
    backends = Backends(Settings(discovery_base_url=tgi, frontier_base_url=openai), load_policy())
    stack.push_async_callback(backends.aclose)
    session = await stack.enter_async_context(aiohttp.ClientSession())
    client = AsyncOpenAI(api_key="-", base_url=openai + "/v1", max_retries=0, http_client=DefaultAioHttpClient())
    stack.push_async_callback(client.close)
    wire = Wire()
    stack.push_async_callback(wire.aclose)
    on_wire = httpx2.AsyncClient(transport=WireTransport(wire), trust_env=False)
    requesting = AsyncOpenAI(api_key="-", base_url=openai + "/v1", max_retries=0, http_client=on_wire)
    stack.push_async_callback(requesting.close)
    return {
        "openai_ours": _ours(*backends.for_model("frontier")),
        "openai_bare": lambda: _bare_openai(session, openai),
        "openai_request": lambda: _openai_request(requesting),
        "openai_objects": lambda: _openai_objects(client),
        "tgi_ours": _ours(*backends.for_model("discovery-slm")),
        "tgi_bare": lambda: _bare_tgi(session, tgi),
        "tgi_objects": lambda: _tgi_objects(tgi),
    }


def _ours(provider: Provider, model: Any) -> Way:
    request = CompletionRequest(
        turn_id=TurnId("00000000-0000-5000-8000-000000000000"),
        ordinal=1,
        model=model.model,
        adapter=model.adapter,
        messages=MESSAGES,
        json_schema=SCHEMA,
        max_tokens=400,
        clocks=CLOCKS,
    )

    async def call() -> int:
        characters = 0
        whole = False
        async for item in provider.stream(request):
            match item:
                case Delta(text):
                    characters += len(text)
                case Finish():
                    whole = True
        return characters if whole else 0

    return call


OPENAI_BODY: dict[str, Any] = {
    "model": "frontier",
    "messages": CHAT,
    "max_completion_tokens": 400,
    "temperature": 0.7,
    "stream": True,
    "stream_options": {"include_usage": True},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
    },
}
TGI_PARAMETERS: dict[str, Any] = {
    "adapter_id": "discovery",
    "max_new_tokens": 400,
    "temperature": 0.7,
    "do_sample": True,
    "return_full_text": False,
    "details": True,
}


async def _bare_openai(session: aiohttp.ClientSession, url: str) -> int:
    characters = 0
    async with session.post(url + "/v1/chat/completions", json=OPENAI_BODY) as response:
        async for line in response.content:
            if line.startswith(b"data: ") and line != b"data: [DONE]\n":
                choices = json.loads(line[6:])["choices"]
                if choices:
                    characters += len(choices[0]["delta"].get("content") or "")
    return characters


async def _bare_tgi(session: aiohttp.ClientSession, url: str) -> int:
    characters = 0
    parameters = TGI_PARAMETERS | {"grammar": {"type": "json", "value": SCHEMA}}
    body = {"inputs": chatml(MESSAGES), "stream": True, "parameters": parameters}
    async with session.post(url + "/", json=body) as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                token = json.loads(line[6:])["token"]
                if not token["special"]:
                    characters += len(token["text"])
    return characters


async def _openai_request(client: AsyncOpenAI) -> int:
    """The request through the official client, the bytes through our reader."""
    characters = 0
    create: Any = client.chat.completions.with_streaming_response.create
    async with create(**OPENAI_BODY) as response:
        async for item in read_answer(reply_of(response.http_response), ChatChunks()):
            characters += len(item.text) if isinstance(item, Delta) else 0
    return characters


async def _openai_objects(client: AsyncOpenAI) -> int:
    characters = 0
    create: Any = client.chat.completions.create
    async with await create(**OPENAI_BODY) as stream:
        async for chunk in stream:
            if chunk.choices:
                characters += len(chunk.choices[0].delta.content or "")
    return characters


async def _tgi_objects(url: str) -> int:
    characters = 0
    async with AsyncInferenceClient(base_url=url, api_key="-", timeout=10) as client:
        generate: Any = client.text_generation
        tokens = await generate(
            chatml(MESSAGES),
            stream=True,
            grammar=TextGenerationInputGrammarType(type="json", value=SCHEMA),
            **TGI_PARAMETERS,
        )
        async for token in tokens:
            characters += 0 if token.token.special else len(token.token.text)
    return characters


@asynccontextmanager
async def _simulator(dialect: Dialect) -> AsyncGenerator[str]:
    with tempfile.TemporaryDirectory() as place:
        announced = Path(place) / "url"
        process = multiprocessing.get_context("spawn").Process(
            target=run_simulator, args=(dialect,), kwargs={"port_file": announced}, daemon=True
        )
        process.start()
        try:
            async with asyncio.timeout(30):
                while not announced.exists():  # noqa: ASYNC110 - another process's file has no event
                    await asyncio.sleep(0.05)
            yield announced.read_text().strip()
        finally:
            process.terminate()
            process.join()


async def _set_pace(urls: tuple[str, ...], milliseconds: int) -> None:
    wanted = {"fault": "slow", "tokens": CHUNKS, "first_token_ms": 0, "inter_token_ms": milliseconds}
    async with aiohttp.ClientSession() as session:
        for url in urls:
            async with session.put(url + "/_control", json=wanted) as response:
                response.raise_for_status()


if __name__ == "__main__":
    print(json.dumps(run()))
