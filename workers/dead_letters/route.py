"""From the dead-letter topic to the frontier, or into an operator's hands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from structlog import get_logger

from infra.celery.dispatch import Dispatcher, Hint
from infra.crash_points import reach
from infra.kafka.consumer import Batch, EventConsumer, Record
from infra.postgres.dead_letters import DeadLetters, Placed
from infra.postgres.sweeps import Abandoned, Sweeps
from infra.telemetry import metrics
from schemas.agents import Lane
from schemas.dead_letters import H_ID, H_TURN, DeadLetterReason
from schemas.envelope import text_headers
from schemas.ids import TurnId
from workers.answers.abandoned import AbandonedSettler
from workers.each import each

log = get_logger(__name__)

BATCH: Final = 200
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a turn goes that left its lane. All of it may be done again: the ledger decides."""

    sweeps: Sweeps
    dispatcher: Dispatcher
    settler: AbandonedSettler

    async def route(self, turns: Sequence[TurnId]) -> None:
        """Send each of the turns on.

        Raises:
            LedgerUnavailable: do it again.
        """
        if turns:
            await self.send_to_frontier(turns)
            await self.park(turns)

    async def send_to_frontier(self, turns: Sequence[TurnId]) -> None:
        """Tell the frontier's lane of the turns whose one fallback is unused."""
        routable = await self.sweeps.routable(turns)
        if routable:
            await self.dispatcher.send([Hint(turn_id, Lane.FRONTIER_FALLBACK) for turn_id in routable])
            reach("letter_after_route")
            metrics.DEAD_LETTERS_ROUTED.labels("frontier").inc(len(routable))
            log.info("dead_letters_routed", turns=len(routable))

    async def park(self, turns: Sequence[TurnId]) -> None:
        """End the turns that no rescue is left for: the visitor is told, the dead letter waits for an operator."""
        await each(await self.sweeps.fence_unroutable(turns), self._park)

    async def _park(self, turn: Abandoned) -> None:
        await self.settler.unanswered(turn, turn.reason or DeadLetterReason.WORKER_LOST, letter=False, parked=True)
        metrics.DEAD_LETTERS_ROUTED.labels("parked").inc()


class DeadLetterIntake:
    """Reads the dead-letter topic: route, note where the copies are, commit."""

    def __init__(self, *, consumer: EventConsumer, dead_letters: DeadLetters, routing: Routing) -> None:
        self._consumer = consumer
        self._dead_letters = dead_letters
        self._routing = routing

    async def run_once(self, *, wait_ms: int = 500) -> int:
        """Route one batch; returns how many records it had.

        Raises:
            ConsumerBroken: build a new consumer; what was not committed is read again.
            LedgerUnavailable: the same.
        """
        batch = await self._consumer.fetch(wait_ms=wait_ms, limit=BATCH)
        if not batch:
            return 0
        await self._routing.route(_turns(batch))
        await self._dead_letters.place(_places(batch))
        await self._consumer.commit(batch)
        return sum(map(len, batch.values()))


def _named(record: Record, header: str) -> str | None:
    """Return an id a header gives. The topic is ours, but what lies on it may be anybody's."""
    value = text_headers(record.headers).get(header, "")
    return value if _UUID.fullmatch(value) else None


def _turns(batch: Batch) -> list[TurnId]:
    found = (_named(record, H_TURN) for records in batch.values() for record in records)
    return [TurnId(turn) for turn in dict.fromkeys(found) if turn is not None]


def _places(batch: Batch) -> list[Placed]:
    """Return the latest copy of each dead letter; two rows of one letter in a statement would be a toss-up."""
    latest: dict[str, Placed] = {}
    for record in (record for records in batch.values() for record in records):
        letter = _named(record, H_ID)
        if letter is not None:
            latest[letter] = Placed(letter, record.partition, record.offset)
    return list(latest.values())
