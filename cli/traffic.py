"""Steady traffic for a drill: short conversations, each sent on its moment whatever became of those before."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import aiohttp
from pydantic import BaseModel, ValidationError

from cli.http import is_near
from cli.story import Story
from schemas.frames import TERMINAL_PHASES, Phase

LINES: Final = (
    "We lose track of what is in our warehouse",
    "Two of us count the shelves by hand on Mondays",
    "About forty people work here, ten of them with scanners",
    "What would it take to begin with one aisle only?",
    "We compare three offers until the end of the month",
    "Our budget is decided in spring, by the head of operations",
)
"""Messages that nothing but discovery is asked."""

PATIENCE: Final = 120.0
"""Seconds within which a turn must have been told to its end."""


class _Accepted(BaseModel):
    turn_id: str


class _Delta(BaseModel):
    content: str = ""


class _Choice(BaseModel):
    delta: _Delta


class _Place(BaseModel):
    phase: Phase


class _Frame(BaseModel):
    choices: list[_Choice]
    fairlead: _Place


@dataclass(frozen=True, slots=True)
class Visit:
    """One message and what its visitor saw."""

    part: str
    """In which part of the drill it was sent."""
    sent: float
    """Instant of the monotonic clock."""
    ending: str = "broken"
    """State the turn ended in; `refused` if it was not taken, `broken` if the visitor did not see its end."""
    first_word: float | None = None
    """Seconds from sending to the first visible character."""
    calls: int = 0
    """Model calls in the ledger."""
    source: str = "none"
    added: float = 0.0
    """Seconds that a primary which failed unseen had taken before the fallback was asked, by the ledger."""


class Traffic:
    """Sends messages at a steady rate and watches every one to its end."""

    def __init__(self, gateway: str, *, key: str, name: str, rate: float) -> None:
        """Send nothing yet.

        Args:
            gateway: base address.
            key: one that may submit turns and see their ledger.
            name: begins the conversations' ids.
            rate: messages a second.
        """
        self.part = "before"
        """Part of the drill that what is sent now belongs to."""
        self.visits: list[Visit] = []
        """Those that are over."""
        self._gateway, self._key, self._name, self._rate = gateway, key, name, rate
        self._under_way: set[asyncio.Task[None]] = set()

    async def flow(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set, then wait for the visits under way."""
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
            trust_env=not is_near(self._gateway),
        ) as client:
            began = time.monotonic()
            for number in itertools.count():
                await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
                if stop.is_set():
                    break
                task = asyncio.create_task(self._visit(client, number), name=f"visit-{number}")
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            await asyncio.gather(*self._under_way)

    async def _visit(self, client: aiohttp.ClientSession, number: int) -> None:
        visit = Visit(self.part, time.monotonic())
        # What fails leaves the visit as it is: one whose end was not seen.
        with suppress(aiohttp.ClientError, TimeoutError, OSError, ValidationError):
            visit = await self._watched(client, visit, number)
        self.visits.append(visit)

    async def _watched(self, client: aiohttp.ClientSession, visit: Visit, number: int) -> Visit:
        where = f"{self._gateway}/v1/conversations/{self._name}-{number}/turns"
        async with client.post(where, json={"text": LINES[number % len(LINES)]}) as answer:
            if answer.status != 202:
                return replace(visit, ending="refused")
            turn_id = _Accepted.model_validate_json(await answer.read()).turn_id
        first_word: float | None = None
        ended = False
        async with client.get(f"{self._gateway}/v1/turns/{turn_id}/events") as stream:
            async for frame in _frames(stream):
                if first_word is None and any(choice.delta.content for choice in frame.choices):
                    first_word = time.monotonic() - visit.sent
                ended = ended or frame.fairlead.phase in TERMINAL_PHASES
        async with client.get(f"{self._gateway}/v1/turns/{turn_id}") as answer:
            turn = Story.model_validate_json(await answer.read())
        return replace(
            visit,
            ending=turn.state.value if ended and turn.done else visit.ending,
            first_word=first_word,
            calls=len(turn.attempts or ()),
            source=turn.source,
            added=_added(turn),
        )


def _added(turn: Story) -> float:
    match turn.attempts:
        case [first, _, *_] if first.ended_at is not None:
            return (first.ended_at - first.reserved_at).total_seconds()
        case _:
            return 0.0


async def _frames(stream: aiohttp.ClientResponse) -> AsyncIterator[_Frame]:
    async for line in stream.content:
        if line.startswith(b"data: {"):
            yield _Frame.model_validate_json(line[len(b"data: ") :])
