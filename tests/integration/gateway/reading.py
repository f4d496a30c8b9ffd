"""Reading a stream of server-sent events as a plain client does."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass(frozen=True)
class Event:
    """One event."""

    id: int | None
    data: str

    @property
    def done(self) -> bool:
        return self.data == "[DONE]"

    @property
    def frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(self.data)
        return frame


async def events_of(response: httpx2.Response) -> AsyncIterator[Event]:
    """Yield the events of a response; comments are skipped."""
    number: int | None = None
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            yield Event(number, line[6:])
            number = None


async def watch(
    http: httpx2.AsyncClient, turn_id: str, *, after: int | None = None, most: int | None = None
) -> list[Event]:
    """Read a turn's events to the end, or `most` of them."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    seen: list[Event] = []
    async with asyncio.timeout(20), http.stream("GET", f"/v1/turns/{turn_id}/events", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async for event in events_of(response):
            seen.append(event)
            if event.done or len(seen) == most:
                break
    return seen


def told(events: list[Event]) -> list[str]:
    """The frames of a whole stream, without its end mark."""
    assert events[-1].done
    return [event.data for event in events[:-1]]


def content(events: list[Event]) -> str:
    """What the events say, put together."""
    return "".join(e.frame["choices"][0]["delta"].get("content", "") for e in events if not e.done)
