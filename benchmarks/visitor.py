"""A visitor of the whole system, who sends messages over HTTP, watches the answers and keeps the time."""

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from benchmarks.harness import STATE
from cli.system import RunningSystem, running_system
from infra.embedded.servers import Broker, Endpoints
from schemas.ids import TurnId

MESSAGE: Final = "Hello there"
"""Routed to the discovery agent, answered in some forty tokens."""

WARM_TURNS: Final = 20

_THEIRS: Final = ("FAIRLEAD_", "OPENAI_")


@dataclass(frozen=True, slots=True)
class Seen:
    """One turn as its visitor saw it; all but `sent` in seconds after sending."""

    turn_id: TurnId
    sent: float
    """Unix seconds."""
    accepted: float
    visible: float
    ended: float


class Visitor:
    """Speaks to one gateway."""

    def __init__(self, session: aiohttp.ClientSession, gateway: str) -> None:
        self._session = session
        self._gateway = gateway

    async def turn(self) -> Seen:
        """Send the first message of a new conversation and watch it to its end.

        Raises:
            RuntimeError: no content came, or not as an answer.
        """
        started, sent = time.perf_counter(), time.time()
        url = f"{self._gateway}/v1/conversations/{uuid.uuid4().hex}/turns"
        async with self._session.post(url, json={"text": MESSAGE}) as response:
            response.raise_for_status()
            turn_id = TurnId((await response.json())["turn_id"])
        accepted = time.perf_counter() - started
        visible = await self._watch(turn_id, started)
        return Seen(turn_id, sent, accepted, visible, time.perf_counter() - started)

    async def paced(self, turns: int, per_second: float) -> list[Seen]:
        """Send turns at an even pace, whether or not the earlier ones have been answered."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        sent: list[asyncio.Task[Seen]] = []
        for number in range(turns):
            await asyncio.sleep(started + number / per_second - loop.time())
            sent.append(asyncio.create_task(self.turn(), name=f"visitor-{number}"))
        return await asyncio.gather(*sent)

    async def _watch(self, turn_id: TurnId, started: float) -> float:
        """Read the frames; returns when the first of the content came."""
        visible, phase = 0.0, None
        async with self._session.get(f"{self._gateway}/v1/turns/{turn_id}/events") as response:
            response.raise_for_status()
            async for line in response.content:
                if not visible and line.startswith(b"data: {") and b'"phase":"streaming"' in line:
                    visible = time.perf_counter() - started
                elif line.startswith(b"data: {"):
                    phase = json.loads(line[6:])["fairlead"]["phase"]
                elif line == b"data: [DONE]\n":
                    break
        if not visible or phase != "done":
            raise RuntimeError(f"A turn ended {phase!r} instead of answered; see the system's log.")
        return visible


@asynccontextmanager
async def visitor(system: RunningSystem) -> AsyncGenerator[Visitor]:
    """Give a visitor with a key, whose models answer at once; a few turns have warmed everything."""
    found = system.endpoints
    if found.simulators is None:
        raise RuntimeError("The system does not run on simulators.")
    key = {"Authorization": f"Bearer {found.api_key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        for model in (found.simulators.tgi, found.simulators.openai):
            at_once = {"fault": "slow", "first_token_ms": 0, "inter_token_ms": 0}
            async with session.put(f"{model}/_control", json=at_once) as response:
                response.raise_for_status()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=key) as session:
        guest = Visitor(session, found.gateway)
        await guest.paced(WARM_TURNS, 20)
        yield guest


@contextmanager
def whole_system(
    places: Endpoints, broker: Broker, *, database: str | None = None, state: Path = STATE / "system"
) -> Generator[RunningSystem]:
    """Run every process of an installation and the simulators on the given servers; the in-memory broker is its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_THEIRS)}
    environ |= {
        "FAIRLEAD_REDIS": places.redis,
        "FAIRLEAD_DATABASE": database or places.database,
        "FAIRLEAD_RATE_LIMIT_PER_MINUTE": "1000000",
        "FAIRLEAD_LOG_FORMAT": "json",
    }
    if broker == "apache":
        environ["FAIRLEAD_KAFKA"] = places.kafka
    with running_system(state, environ=environ) as system:
        yield system
