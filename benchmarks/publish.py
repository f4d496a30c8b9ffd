"""What it costs to show a chunk: logged, numbered and fenced in one script, beside plain publishing.

50 streams of 200 chunks of 64 characters, a chunk of each every 10 ms. `fused` is the product's publisher: the chunks
of a stream since its last flush are one frame, and all streams' frames leave in one script that appends and publishes.
`publish` sends each chunk as a PUBLISH of its own, `xadd_publish` also appends it to a capped stream, both pipelined by
the same 40 ms; `joined` publishes each stream's chunks since the last flush as one message and keeps nothing.
A subscriber in another process notes when each chunk arrives. CPU is the publishing process's, less what making the
chunks costs. `python -m benchmarks.publish` prints one JSON line.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import uvloop
from redis.asyncio import Redis

from benchmarks.harness import (
    Child,
    Pipe,
    Round,
    Rounds,
    asked,
    child,
    in_turn,
    medians,
    percentile,
    ratio,
    servers,
    show,
    told,
)
from infra.embedded.servers import Endpoints
from infra.processes import end
from infra.redis.client import create_redis
from infra.redis.frame_log import FrameLog, Stream
from infra.telemetry import metrics
from schemas.frames import SEQ_ROUTED, Phase, TurnStreamInfo, render
from schemas.ids import TurnId
from workers.answers.publisher import FLUSH_SECONDS, Publisher
from workers.answers.writer import FrameWriter

STREAMS: Final = 50
CHUNKS: Final = 200
GAP: Final = 0.01
ROUNDS: Final = 5
PIPELINE: Final = 50
TENANT: Final = "bench"

_STAMP: Final = re.compile(rb"<(\d+\.\d+)>")


class Sender(Protocol):
    """One way of publishing."""

    async def open(self, names: Sequence[str]) -> None:
        """Get ready for these streams."""

    def write(self, name: str, chunk: str) -> None:
        """Take a chunk; it leaves with the next flush."""

    async def close(self) -> int:
        """Send what is left; returns how many times something was sent, or nothing was by design."""
        ...


def run(
    *, streams: int = STREAMS, chunks: int = CHUNKS, rounds: int = ROUNDS, given: Endpoints | None = None
) -> dict[str, object]:
    """Measure; CPU in microseconds per chunk, latency in milliseconds from writing to receiving."""

    def measure() -> dict[str, object]:
        with servers(given, kafka=False, database=False) as places:
            return uvloop.run(_measure(places.redis, streams, chunks, rounds))

    return told("publish", measure)


def main() -> None:
    """Print the figures as one JSON line."""
    show(run())


async def _measure(url: str, streams: int, chunks: int, rounds: int) -> dict[str, object]:
    redis = create_redis(url)
    makers: dict[str, Callable[[], Sender]] = {
        "nothing": Nothing,
        "fused": lambda: Fused(redis),
        "joined": lambda: Pipelined(redis, joined),
        "publish": lambda: Pipelined(redis, each),
        "xadd_publish": lambda: Pipelined(redis, each_kept),
    }
    try:
        async with child(_subscriber, url) as ear:
            await ear.answer()
            ways = {name: _way(ear, make, streams, chunks) for name, make in makers.items()}
            samples = await in_turn(ways, rounds=rounds)
    finally:
        await redis.aclose()
    for number, nothing in enumerate(samples.pop("nothing")):
        for rows in samples.values():
            rows[number]["cpu_us"] -= nothing["cpu_us"]
    return {
        "streams": streams,
        "chunks": chunks,
        "rounds": rounds,
        "medians": medians(samples),
        "summary": _summary(samples),
        "targets": {"fused / publish, CPU per chunk": "<= 1.5"},
    }


def _summary(samples: Rounds) -> dict[str, float]:
    middle = medians(samples)
    return {
        "fused / publish, CPU per chunk": ratio(samples, "fused", "publish", "cpu_us"),
        "fused / xadd_publish, CPU per chunk": ratio(samples, "fused", "xadd_publish", "cpu_us"),
        "fused / joined, CPU per chunk": ratio(samples, "fused", "joined", "cpu_us"),
        "fused: chunk written to received, p50 ms": middle["fused"]["latency_p50_ms"],
        "joined: chunk written to received, p50 ms": middle["joined"]["latency_p50_ms"],
        "fused: chunks per flush": middle["fused"]["chunks_per_flush"],
    }


def _way(ear: Child, make: Callable[[], Sender], streams: int, chunks: int) -> Callable[[], Awaitable[Round]]:
    async def way() -> Round:
        names = [uuid.uuid4().hex for _ in range(streams)]
        sender = make()
        await sender.open(names)
        await ear.ask("listen", 0)
        cpu = time.process_time()
        await _write(sender, names, chunks)
        flushes = await sender.close()
        cpu = time.process_time() - cpu
        received, latency = await ear.ask("tell", streams * chunks if flushes else 0)
        if flushes and received != streams * chunks:
            raise RuntimeError(f"{received} of {streams * chunks} chunks arrived.")
        return {
            "cpu_us": cpu / (streams * chunks) * 1e6,
            "latency_p50_ms": latency,
            "chunks_per_flush": streams * chunks / flushes if flushes else 0.0,
        }

    return way


async def _write(sender: Sender, names: Sequence[str], chunks: int) -> None:
    """Write a chunk of every stream each 10 ms, spread over them as models would."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number in range(chunks):
        for group in range(5):
            await asyncio.sleep(started + (number + group / 5) * GAP - loop.time())
            for name in names[group::5]:
                sender.write(name, f"<{time.perf_counter():.6f}>".ljust(64, "."))


class Nothing:
    """Drops everything: what is measured is the making of the chunks."""

    async def open(self, names: Sequence[str]) -> None:
        """Need nothing."""

    def write(self, name: str, chunk: str) -> None:
        """Drop it."""

    async def close(self) -> int:
        """Have sent nothing."""
        return 0


class Fused:
    """The product's publisher and frame log."""

    def __init__(self, redis: Redis) -> None:
        self._frames = FrameLog(redis)
        self._publisher = Publisher(self._frames, self._still_ours)
        self._writers: dict[str, FrameWriter] = {}
        self._flushes = _flushes()

    async def open(self, names: Sequence[str]) -> None:
        """Arm every stream, and run the publisher."""
        for name in names:
            turn = TurnId(name)
            stream, info = Stream(turn, TENANT, name, 1), TurnStreamInfo(turn, name, 0)
            self._writers[name] = FrameWriter(stream=stream, info=info)
            await self._frames.arm(stream, render(info, SEQ_ROUTED, Phase.ROUTED))
        self._running = asyncio.create_task(self._publisher.run(), name="publisher")

    def write(self, name: str, chunk: str) -> None:
        """Hand it to the stream's writer; the first of a stream leaves at once."""
        writer = self._writers[name]
        first = not writer.started
        writer.write(chunk)
        self._publisher.submit(writer, urgent=first)

    async def close(self) -> int:
        """Drain every writer."""
        for writer in self._writers.values():
            await self._publisher.drain(writer)
        await end([self._running])
        return _flushes() - self._flushes

    async def _still_ours(self, _: FrameWriter) -> bool:
        return True


def _flushes() -> int:
    [family] = metrics.FLUSHES_PUBLISHED.collect()
    return int(next(sample.value for sample in family.samples if sample.name.endswith("_total")))


Commands = Callable[[Any, str, Sequence[str]], int]
"""Puts what one stream has to send into a pipeline; returns how many commands."""


def joined(pipe: Any, name: str, chunks: Sequence[str]) -> int:
    """One PUBLISH of everything."""
    pipe.publish(_channel(name), "".join(chunks))
    return 1


def each(pipe: Any, name: str, chunks: Sequence[str]) -> int:
    """A PUBLISH of each chunk."""
    for chunk in chunks:
        pipe.publish(_channel(name), chunk)
    return len(chunks)


def each_kept(pipe: Any, name: str, chunks: Sequence[str]) -> int:
    """An XADD and a PUBLISH of each chunk."""
    for chunk in chunks:
        pipe.xadd(f"bench:{name}", {"c": chunk}, maxlen=1000, approximate=True)
        pipe.publish(_channel(name), chunk)
    return len(chunks) * 2


def _channel(name: str) -> str:
    return f"bench:{TENANT}:{name}"


class Pipelined:
    """Plain commands in pipelines, by the product's interval."""

    def __init__(self, redis: Redis, commands: Commands) -> None:
        self._redis = redis
        self._commands = commands
        self._pending: dict[str, list[str]] = {}
        self._open = True
        self._flushes = 0

    async def open(self, names: Sequence[str]) -> None:
        """Begin to flush."""
        self._running = asyncio.create_task(self._run(), name="flush")

    def write(self, name: str, chunk: str) -> None:
        """Let it wait for the next flush."""
        self._pending.setdefault(name, []).append(chunk)

    async def close(self) -> int:
        """Flush what is left."""
        self._open = False
        await self._running
        return self._flushes

    async def _run(self) -> None:
        while self._open or self._pending:
            await asyncio.sleep(FLUSH_SECONDS)
            taken, self._pending = self._pending, {}
            if taken:
                await self._send(taken)

    async def _send(self, taken: dict[str, list[str]]) -> None:
        self._flushes += 1
        pipe, filled = self._redis.pipeline(transaction=False), 0
        for name, chunks in taken.items():
            filled += self._commands(pipe, name, chunks)
            if filled >= PIPELINE:
                await pipe.execute()
                filled = 0
        await pipe.execute()


def _subscriber(connection: Pipe, url: str) -> None:
    uvloop.run(_listen(connection, url))


async def _listen(connection: Pipe, url: str) -> None:
    """Note the latency of every chunk; both processes read the machine's one monotonic clock."""
    late: list[float] = []
    async with Redis.from_url(url) as redis, redis.pubsub() as pubsub:
        ear: Any = pubsub
        await ear.psubscribe("*")
        hearing = asyncio.create_task(_hear(ear, late), name="hear")
        connection.send("ready")
        while not hearing.done():
            wanted, expected = await asked(connection)
            if wanted == "tell":
                await _patiently(late, expected)
                connection.send((len(late), percentile(late, 0.5)))
            else:
                late.clear()
                connection.send("listening")
        hearing.result()


async def _patiently(late: list[float], expected: int) -> None:
    """Wait for the last to arrive, but not for ever."""
    due = time.monotonic() + 2
    while len(late) < expected and time.monotonic() < due:  # noqa: ASYNC110 - it is the clock that is waited for
        await asyncio.sleep(0.01)


async def _hear(ear: Any, late: list[float]) -> None:
    async for message in ear.listen():
        if message["type"] == "pmessage":
            now = time.perf_counter()
            late.extend((now - float(stamp)) * 1e3 for stamp in _STAMP.findall(message["data"]))


if __name__ == "__main__":
    main()
