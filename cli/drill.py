"""`fairlead drill`: takes a model away under traffic of its own and tells what visitors would have noticed."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import typer

from cli.breakers import change_breaker, lane_named, read_breakers
from cli.drill_report import AFTER, AWAY, BEFORE, Report, told
from cli.failure import CommandFailed
from cli.http import HttpFailed
from cli.operators import operators_gateway
from cli.simulated import set_fault
from cli.state import local_endpoints
from cli.traffic import Traffic

Fault = Literal["close", "hang", "status"]
"""How a simulated model fails: closes the connection, never answers, answers with 503."""

CALM_SECONDS: Final = 15.0
"""Of traffic before the outage, and at least after it; a third of the outage if that is less."""

CLOSING_SECONDS: Final = 120.0
"""How long after the outage the breaker may take to close."""

LOOK_SECONDS: Final = 0.5
MOST_SECONDS: Final = 3600.0

_FAULTS: Final = {
    "close": {"before_headers": True},
    "hang": {"before_headers": True},
    "status": {"status": 503},
}


@dataclass(frozen=True, kw_only=True)
class Drill:
    """What is to be done, and where."""

    gateway: str
    key: str
    lane: str
    seconds: float
    rate: float
    fault: Fault | None
    simulator: str | None
    """Address of the simulated model that shall have the fault; without one the workers leave the model alone."""
    name: str

    async def run(self) -> Report:
        """Play the drill: calm traffic, the outage, traffic until the breaker has closed again.

        Raises:
            CommandFailed: the key may not, nothing answers, or there is no model to take away.
        """
        traffic = Traffic(self.gateway, key=self.key, name=self.name, rate=self.rate)
        calm = min(CALM_SECONDS, self.seconds / 3)
        async with _flowing(traffic), self._watched() as breaker:
            await asyncio.sleep(calm)
            _check_there_is_a_model(traffic)
            traffic.part, breaker.away_at = AWAY, time.monotonic()
            with self._taken_away():
                await asyncio.sleep(self.seconds)
            traffic.part, breaker.back_at = AFTER, time.monotonic()
            await asyncio.sleep(calm)
            await breaker.closed(CLOSING_SECONDS)
        return Report(
            drill=self.name,
            lane=self.lane,
            visits=tuple(traffic.visits),
            away_at=breaker.away_at,
            back_at=breaker.back_at,
            opened_at=breaker.opened_at,
            closed_at=breaker.closed_at,
        )

    @contextmanager
    def _taken_away(self) -> Generator[None]:
        """Keep the model away; it is given back at once whatever ends this, and by itself if nothing can."""
        if self.simulator is not None and self.fault is not None:
            set_fault(self.simulator, self.fault, **_FAULTS[self.fault])
            try:
                yield
            finally:
                set_fault(self.simulator, "none")
            return
        change_breaker(self.gateway, self.lane, self._away(self.seconds), key=self.key)
        try:
            yield
        finally:
            change_breaker(self.gateway, self.lane, self._away(0), key=self.key)

    def check(self) -> None:
        """Find out whether all of it is allowed, before any visitor is sent.

        Raises:
            CommandFailed: it is not (exit status 3), or nothing answers.
        """
        [lane] = [found for found in read_breakers(self.gateway, key=self.key) if found.lane == self.lane]
        if lane.forced or lane.state != "closed" or lane.away_until:
            raise CommandFailed(f"The breaker of {self.lane} is not closed by itself: see `fairlead breakers ls`.")
        if self.simulator is None:
            change_breaker(self.gateway, self.lane, self._away(0), key=self.key)

    def _away(self, seconds: float) -> dict[str, object]:
        return {"away_seconds": seconds, "reason": f"drill {self.name}"}

    @asynccontextmanager
    async def _watched(self) -> AsyncGenerator["_Watch"]:
        watch = _Watch(self.gateway, self.key, self.lane)
        task = asyncio.create_task(watch.look_for_ever(), name="breaker")
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class _Watch:
    """When the breaker opened and closed, as seen from here: late by a look at most."""

    def __init__(self, gateway: str, key: str, lane: str) -> None:
        self.away_at = 0.0
        self.back_at = 0.0
        self.opened_at: float | None = None
        self.closed_at: float | None = None
        self._where = (gateway, key, lane)
        self._closed = asyncio.Event()
        self._closed.set()

    async def look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._saw(await asyncio.to_thread(self._state))
            except CommandFailed:
                continue  # the next look may succeed; what visitors saw is what counts

    async def closed(self, seconds: float) -> None:
        """Wait until a breaker that opened has closed, so many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    def _state(self) -> str:
        gateway, key, lane = self._where
        return next(found.state for found in read_breakers(gateway, key=key) if found.lane == lane)

    def _saw(self, state: str) -> None:
        if not self.away_at:
            return
        if state != "closed":
            self.opened_at = self.opened_at or time.monotonic()
            self.closed_at = None
            self._closed.clear()
        elif self.opened_at is not None and self.closed_at is None:
            self.closed_at = time.monotonic()
            self._closed.set()


def drill(
    agent: str,
    *,
    lasting: str,
    rate: str,
    fault: Fault | None,
    state: Path,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> int:
    """Play a drill and return the exit status: 1 if anything but waiting would have been noticed.

    Raises:
        CommandFailed: the key may not (3), the words do not fit (2), nothing answers, or there is no model.
    """
    gateway, key = operators_gateway(state, url, key)
    planned = Drill(
        gateway=gateway,
        key=key,
        lane=lane_named(agent),
        seconds=_seconds(lasting),
        rate=_a_second(rate),
        fault=fault,
        simulator=_simulated(state, url) if fault else None,
        name=f"drill-{secrets.token_hex(4)}",
    )
    planned.check()
    try:
        report = asyncio.run(planned.run())
    except KeyboardInterrupt:
        typer.echo("Interrupted; the model has been given back.", err=True)
        return 130
    except HttpFailed as error:
        raise CommandFailed(f"The simulated model could not be set: {error}") from error
    typer.echo(json.dumps(report.facts(), indent=2) if as_json else told(report))
    return 0 if report.only_latency else 1


@asynccontextmanager
async def _flowing(traffic: Traffic) -> AsyncGenerator[None]:
    """Let the traffic flow while the block runs, then see every visit to its end."""
    stop = asyncio.Event()
    task = asyncio.create_task(traffic.flow(stop), name="traffic")
    try:
        yield
        stop.set()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _check_there_is_a_model(traffic: Traffic) -> None:
    if not any(visit.source == "primary" for visit in traffic.visits if visit.part == BEFORE):
        raise CommandFailed(
            f"The model answered none of the {len(traffic.visits)} messages before the outage, so there is nothing to "
            "take away: see `fairlead doctor`, and `fairlead breakers ls`."
        )


def _simulated(state: Path, url: str | None) -> str:
    found = None if url else local_endpoints(state).simulators
    if found is None:
        raise CommandFailed("--simulator needs a system of `fairlead up` whose models are simulated.", status=2)
    return found.tgi


def _seconds(text: str) -> float:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m)?", text)
    found = float(parts[1]) * (60 if parts[2] == "m" else 1) if parts else 0.0
    if not 1 <= found <= MOST_SECONDS:
        raise CommandFailed("--for is a time from 1s to 60m, such as 60s.", status=2)
    return found


def _a_second(text: str) -> float:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/s)?", text)
    found = float(parts[1]) if parts else 0.0
    if not 0 < found <= 100:
        raise CommandFailed("--rate is messages a second up to 100, such as 4/s.", status=2)
    return found
