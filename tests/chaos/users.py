"""Users of a system that breaks: they ask again, come back, and remember what they were promised and told."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final, Self

import aiohttp

from tests.chaos.evidence import Promise, Told, Transcript

LINES: Final = (
    "Hello there, we lose track of what is in our warehouse",
    "Two of us count the shelves by hand on Mondays",
    "How would this integrate with the API of our shop?",
    "About forty people work here, ten of them with scanners",
    "My order screen is not working since this morning",
    "What would it take to begin with one aisle only?",
    "Could you write a one-pager for my manager?",
    "We compare three offers until the end of the month",
    "Is the data encrypted when it leaves the building?",
    "Our budget is decided in spring, by the head of operations",
)
"""For every lane: discovery, support, technical consultant, content generator."""

_LINES_A_CONVERSATION: Final = 5
_PAUSE: Final = 0.5
_PATIENCE: Final = 150.0
"""Seconds for a message to be taken, and for an answer to be told to its end: twice what a turn itself may take.

An answer is waited for that long while the gateway can be reached: on a full machine it may be killed faster than it
starts, and nobody promises a stream from a process that is not there.
"""


class Users:
    """A crowd at one gateway; an async context manager. Each waits for the answer before the next line.

    Every fourth conversation is of somebody who sends two lines at once. Some watch twice, some lose the line.
    """

    def __init__(self, *, gateway: str, key: str, seed: int, name: str = "chaos") -> None:
        self.promises: list[Promise] = []
        self.transcripts: list[Transcript] = []
        self.met: Counter[str] = Counter()
        """What went wrong on the way, by kind."""
        self._random = random.Random(seed)
        self._gateway, self._key, self._name = gateway, key, name
        self._left = 0
        self._until = 0.0
        self._stack = AsyncExitStack()
        self._client: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                self._gateway,
                headers={"Authorization": f"Bearer {self._key}"},
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=12),
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def talk(self, *, turns: int, seconds: float, users: int, pause: float) -> None:
        """Hold conversations, so many users at once, until so many turns were accepted or the time is up.

        A user rests `pause` seconds after each answer, on average.
        """
        self._left, self._until = turns, time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for user in range(users):
                group.create_task(self._user(user, pause), name=f"user-{user}")

    async def read_all(self) -> None:
        """Watch every accepted turn once more, from its first frame, as somebody who comes late."""
        turns = [promise.turn for promise in self.promises]
        for start in range(0, len(turns), 20):
            await asyncio.gather(*(self.watch(turn, "a late reader") for turn in turns[start : start + 20]))

    async def _user(self, user: int, pause: float) -> None:
        held = 0
        while self._left > 0 and time.monotonic() < self._until:
            await self._converse(f"{self._name}-{user}-{held}", pause, impatient=(user + held) % 4 == 0)
            held += 1

    async def _converse(self, conversation: str, pause: float, *, impatient: bool) -> None:
        at_once = 2 if impatient else 1
        first = self._random.randrange(len(LINES))
        for place in range(0, _LINES_A_CONVERSATION, at_once):
            taken = min(at_once, self._left)
            self._left -= taken
            places = range(place, place + taken)
            turns = [await self.post(conversation, n, LINES[(first + n) % len(LINES)]) for n in places]
            await asyncio.gather(*(self._look_on(turn) for turn in turns if turn is not None))
            if self._left <= 0 or time.monotonic() > self._until:
                return
            await asyncio.sleep(self._random.uniform(0, 2 * pause * at_once))

    async def post(self, conversation: str, place: int, line: str) -> str | None:
        """Send a message, again and again under its key, until it is accepted."""
        asked, give_up = time.time(), time.monotonic() + _PATIENCE
        while time.monotonic() < give_up:
            try:
                async with self._client.post(
                    f"/v1/conversations/{conversation}/turns",
                    json={"text": line},
                    headers={"Idempotency-Key": f"{conversation}-{place}"},
                    timeout=aiohttp.ClientTimeout(total=12),
                ) as answer:
                    if answer.status == 202:
                        turn = str((await answer.json())["turn_id"])
                        self.promises.append(
                            Promise(turn=turn, conversation=conversation, place=place, asked=asked, at=time.time())
                        )
                        return turn
                    self.met[f"message answered {answer.status}"] += 1
            except (aiohttp.ClientError, TimeoutError, OSError):
                self.met["message not answered"] += 1
            await asyncio.sleep(_PAUSE)
        self.met["message given up"] += 1
        return None

    async def _look_on(self, turn: str) -> None:
        watching = [self.watch(turn, "the user", fickle=self._random.random() < 0.2)]
        if self._random.random() < 0.2:
            watching.append(self.watch(turn, "a second watcher", after=self._random.uniform(0, 1.5)))
        await asyncio.gather(*watching)

    async def watch(self, turn: str, watcher: str, *, after: float = 0.0, fickle: bool = False) -> None:
        """Read a turn's stream to its end, going on after the last frame whenever it breaks."""
        await asyncio.sleep(after)
        transcript = Transcript(turn=turn, watcher=watcher)
        self.transcripts.append(transcript)
        leaves = self._random.randrange(1, 12) if fickle else None
        give_up = time.monotonic() + _PATIENCE
        while not transcript.done and time.monotonic() < give_up:
            tried = time.monotonic()
            try:
                transcript.connections += 1
                await self._read(transcript, leaves if transcript.connections == 1 else None)
            except aiohttp.ClientConnectorError:
                self.met["gateway away"] += 1
                give_up += time.monotonic() - tried + _PAUSE
            except (aiohttp.ClientError, TimeoutError, OSError):
                self.met["stream broken"] += 1
            if not transcript.done:
                await asyncio.sleep(_PAUSE)

    async def _read(self, transcript: Transcript, leaves: int | None) -> None:
        position = {"Last-Event-ID": str(transcript.frames[-1].seq)} if transcript.frames else {}
        async with self._client.get(f"/v1/turns/{transcript.turn}/events", headers=position) as answer:
            if answer.status != 200:
                self.met[f"stream answered {answer.status}"] += 1
                return
            async for data in _events(answer):
                if data == "[DONE]":
                    transcript.done = True
                    return
                transcript.frames.append(Told.of(data))
                if leaves is not None and len(transcript.frames) >= leaves:
                    return


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The data of each event that came whole."""
    data = ""
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("data: "):
            data = line[6:]
        elif not line and data:
            yield data
            data = ""
