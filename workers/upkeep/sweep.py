"""One sweep over what nobody is working on any more. Every step may run in several processes at once."""

import time
from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis
from structlog import get_logger

from infra.celery.dispatch import Dispatcher, Hint
from infra.crash_points import reach
from infra.postgres.sweeps import Abandoned, Rescued, Sweeps
from infra.redis.frame_log import FrameLog, FramesUnavailable, Sealed
from infra.redis.wake import announce
from infra.telemetry import metrics
from schemas.dead_letters import DeadLetterReason
from schemas.ids import TurnId
from workers.answers.abandoned import AbandonedSettler, stream_of
from workers.each import each

log = get_logger(__name__)

FORGOTTEN_SECONDS: Final = 5.0
"""How long a turn without any rescue left may wait for the dead-letter worker to park it."""


@dataclass(slots=True)
class Sweeper:
    """The steps of upkeep; `run_once` is all of them."""

    sweeps: Sweeps
    frames: FrameLog
    redis: Redis
    dispatcher: Dispatcher
    settler: AbandonedSettler
    lease: float
    _patient_until: float = field(default=0.0)

    async def run_once(self) -> None:
        """Give every turn that lost its way a way to its end."""
        await self.start_stuck_heads()
        await self.resend_lost_hints()
        if time.monotonic() >= self._patient_until:
            await self.rescue_unseen()
            await self.seal_abandoned_streams()
        await self.end_unroutable()
        await self.end_late()

    def ledger_was_away(self) -> None:
        """Take nobody's turn for the next lease: while PostgreSQL was away no owner could renew, no lane claim."""
        self._patient_until = time.monotonic() + self.lease

    async def start_stuck_heads(self) -> None:
        """Announce heads of conversations that no orchestrator prepares."""
        await each(await self.sweeps.wakeable(), self._announce)

    async def _announce(self, turn_id: TurnId) -> None:
        await announce(self.redis, turn_id)

    async def resend_lost_hints(self) -> None:
        """Send hints again for turns that still wait in a lane."""
        due = await self.sweeps.rehint()
        if due:
            log.info("hints_resent", turns=len(due))
            await self.dispatcher.send([Hint(turn_id, lane) for turn_id, lane in due])

    async def rescue_unseen(self) -> None:
        """Turns whose lane is late, or whose worker is gone before it showed anything, become dead letters.

        The dead-letter worker routes them to the frontier; should it be away, their hints are resent as any others.
        """
        _count(await self.sweeps.pass_queue_deadline())
        _count(await self.sweeps.expire_unseen())

    async def seal_abandoned_streams(self) -> None:
        """Close streams whose worker is gone: what was visible stays."""
        await each(await self.sweeps.start_sealing(), self._seal)

    async def _seal(self, turn: Abandoned) -> None:
        reach("after_sealing")
        try:
            sealed = await self.frames.seal(stream_of(turn))
        except FramesUnavailable:
            log.warning("sealing_waits", turn_id=turn.turn_id)
            return
        if sealed is not None:
            reach("after_seal")
            await self._after_seal(turn, sealed)

    async def _after_seal(self, turn: Abandoned, sealed: Sealed) -> None:
        if sealed.pieces:
            content, cuts = "".join(sealed.pieces), tuple(map(len, sealed.pieces))
            await self.settler.shown(turn, content, cuts, whole=sealed.finished)
        elif sealed.armed:
            if await self.sweeps.sealed_unseen(turn):
                _count([Rescued(turn.turn_id, DeadLetterReason.WORKER_LOST)])
        elif turn.content:
            # Redis forgot the turn. The checkpoint is what is known to have been shown.
            await self.settler.shown(turn, turn.content, turn.cuts, whole=False)
        else:
            await self.settler.unanswered(turn, DeadLetterReason.SEAL_UNKNOWN, letter=True)

    async def end_unroutable(self) -> None:
        """Park turns that no rescue is left for and that the dead-letter worker has not seen to."""
        await each(await self.sweeps.fence_forgotten(patience=FORGOTTEN_SECONDS), self._park)

    async def _park(self, turn: Abandoned) -> None:
        await self.settler.unanswered(turn, turn.reason or DeadLetterReason.WORKER_LOST, letter=False, parked=True)

    async def end_late(self) -> None:
        """Turns past their deadline of which nobody saw anything end without an answer."""
        await each(await self.sweeps.fence_late(), self._end_late)

    async def _end_late(self, turn: Abandoned) -> None:
        # A turn that left its lane before has its dead letter already.
        known = turn.reason is not None
        await self.settler.unanswered(turn, turn.reason or DeadLetterReason.TURN_DEADLINE, letter=not known)


def _count(rescued: list[Rescued]) -> None:
    for turn in rescued:
        reach("after_letter")
        metrics.RESCUES.labels(turn.reason.value).inc()
        metrics.DEAD_LETTERS.labels(turn.reason.value).inc()
        log.warning("turn_dead_lettered", turn_id=turn.turn_id, reason=turn.reason.value)
