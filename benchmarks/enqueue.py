"""What it costs to tell the lanes of 5,000 turns, and for how long the event loop stands still meanwhile.

Ours is `Dispatcher.send`, one hint a call and 64 a call. The peer is Celery's own `apply_async` with a held producer,
called on the loop (which it blocks) and in a thread; it gets a fifth of the messages, for it is slow. The limit is a
bare pipelined LPUSH of the same bytes. `idle` is the loop with nothing to do: its stalls are the machine's.
`python -m benchmarks.enqueue` prints one JSON line.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import uvloop
from celery import Celery
from redis.asyncio import Redis

from benchmarks.harness import Round, Ticker, Way, in_turn, medians, ratio, servers, show, told
from infra.celery.app import create_app
from infra.celery.dispatch import Dispatcher, Hint
from infra.celery.envelope import envelope
from infra.embedded.servers import Endpoints
from infra.redis.client import create_redis
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import CELERY_PREFIX, TASK_ANSWER

HINTS: Final = 5_000
ROUNDS: Final = 5
BATCH: Final = 64
PEER_SHARE: Final = 5
LANE: Final = Lane.DISCOVERY

Apply = Callable[[TurnId], None]


def run(*, hints: int = HINTS, rounds: int = ROUNDS, given: Endpoints | None = None) -> dict[str, object]:
    """Measure; rates are messages a second, stalls milliseconds."""

    def measure() -> dict[str, object]:
        with servers(given, kafka=False, database=False) as places:
            return uvloop.run(_measure(places.redis, hints, rounds))

    return told("enqueue", measure)


def main() -> None:
    """Print the figures as one JSON line."""
    show(run())


async def _measure(url: str, hints: int, rounds: int) -> dict[str, object]:
    turns = [TurnId(str(uuid.uuid4())) for _ in range(hints)]
    few = turns[: max(1, hints // PEER_SHARE)]
    redis = create_redis(url)
    try:
        with _held(create_app(url)) as apply:
            ways: dict[str, Way] = {
                "idle": lambda: _timed(redis, 1, asyncio.sleep(0.3)),
                "ours_single": lambda: _timed(redis, hints, _ours(Dispatcher(redis), turns, 1)),
                "ours_batched": lambda: _timed(redis, hints, _ours(Dispatcher(redis), turns, BATCH)),
                "celery_on_loop": lambda: _timed(redis, len(few), _on_loop(apply, few)),
                "celery_in_thread": lambda: _timed(redis, len(few), asyncio.to_thread(_all, apply, few)),
                "raw_lpush": _raw(redis, turns),
            }
            samples = await in_turn(ways, rounds=rounds)
    finally:
        await redis.aclose()
    return {
        "hints": hints,
        "rounds": rounds,
        "medians": medians(samples),
        "summary": {
            "ours batched, messages/s": medians(samples)["ours_batched"]["per_s"],
            "ours batched / apply_async": ratio(samples, "ours_batched", "celery_on_loop", "per_s"),
            "ours one by one / apply_async": ratio(samples, "ours_single", "celery_on_loop", "per_s"),
            "ours batched / raw LPUSH": ratio(samples, "ours_batched", "raw_lpush", "per_s"),
            "longest stall, ours batched, ms": medians(samples)["ours_batched"]["stall_max_ms"],
            "longest stall, ours one by one, ms": medians(samples)["ours_single"]["stall_max_ms"],
            "longest stall, apply_async, ms": medians(samples)["celery_on_loop"]["stall_max_ms"],
            "longest stall, idle loop, ms": medians(samples)["idle"]["stall_max_ms"],
        },
        "targets": {"ours batched / apply_async": ">= 10", "longest stall, ours batched, ms": "<= 2"},
    }


async def _timed(redis: Redis, messages: int, work: Coroutine[Any, Any, object]) -> Round:
    """Do the work beside a ticker, then take the messages away again."""
    async with Ticker() as ticker:
        wall, cpu = time.perf_counter(), time.process_time()
        await work
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await redis.delete(CELERY_PREFIX + LANE.value)
    return {"per_s": messages / wall, "cpu_us": cpu / messages * 1e6, **ticker.figures}


async def _ours(dispatcher: Dispatcher, turns: Sequence[TurnId], size: int) -> None:
    for at in range(0, len(turns), size):
        if not await dispatcher.send([Hint(turn, LANE) for turn in turns[at : at + size]]):
            raise RuntimeError("Redis did not take the hints; is it up?")


async def _on_loop(apply: Apply, turns: Sequence[TurnId]) -> None:
    for turn in turns:
        apply(turn)
        # Where our orchestrator would await: others may run between two messages.
        await asyncio.sleep(0)


def _all(apply: Apply, turns: Sequence[TurnId]) -> None:
    for turn in turns:
        apply(turn)


def _raw(redis: Redis, turns: Sequence[TurnId]) -> Way:
    """The bytes are made beforehand: what is left is Redis and its client."""
    messages = [envelope(LANE, turn) for turn in turns]

    async def push() -> None:
        for at in range(0, len(messages), BATCH):
            async with redis.pipeline(transaction=False) as pipe:
                for message in messages[at : at + BATCH]:
                    pipe.lpush(CELERY_PREFIX + LANE.value, message)
                await pipe.execute()

    return lambda: _timed(redis, len(messages), push())


@contextmanager
def _held(app: Celery) -> Generator[Apply]:
    """Celery's own way with a connection that stays open."""

    @app.task(name=TASK_ANSWER)
    def answer(turn_id: str) -> None:
        """Nobody runs it."""

    with app.producer_pool.acquire(block=True) as producer:

        def apply(turn: TurnId) -> None:
            answer.apply_async((turn,), queue=LANE.value, producer=producer)

        yield apply
    app.close()


if __name__ == "__main__":
    main()
