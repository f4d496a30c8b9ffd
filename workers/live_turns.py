"""The turns a process is carrying: their leases, and what they have shown so far."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from structlog import get_logger

from infra.postgres.claims import Checkpoint, Claim, Claims
from infra.postgres.statements import LedgerUnavailable
from infra.telemetry import metrics
from workers.answers.writer import FrameWriter

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Carried:
    claim: Claim
    writer: FrameWriter
    task: asyncio.Task[object] | None


class LiveTurns:
    """Renews all leases together, and cancels the work on turns that are no longer ours."""

    def __init__(self, claims: Claims, *, lease: float) -> None:
        self._claims = claims
        self._every = min(2.0, lease / 5)
        self._carried: dict[str, _Carried] = {}
        self.last_renewal = asyncio.get_running_loop().time()

    def __len__(self) -> int:
        return len(self._carried)

    @contextmanager
    def carrying(self, claim: Claim, writer: FrameWriter) -> Generator[None]:
        """Keep the turn's lease while the block runs."""
        self._carried[claim.turn_id] = _Carried(claim, writer, asyncio.current_task())
        metrics.LIVE_TURNS.set(len(self._carried))
        try:
            yield
        finally:
            del self._carried[claim.turn_id]
            metrics.LIVE_TURNS.set(len(self._carried))

    async def run(self) -> None:
        """Renew for ever."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.renew()
            except LedgerUnavailable as error:
                log.warning("leases_not_renewed", error=str(error), turns=len(self))
            except Exception:
                # Without this loop every turn of the process would lose its lease.
                log.exception("leases_not_renewed", turns=len(self))

    async def renew(self) -> None:
        """Renew every lease once, with a checkpoint of what was shown."""
        carried = list(self._carried.values())
        if carried:
            kept = await self._claims.renew(
                [Checkpoint(c.claim.turn_id, c.claim.epoch, c.writer.content, c.writer.cuts) for c in carried]
            )
            for lost in carried:
                # Compare the object: the turn may have ended while the statement ran.
                if lost.claim.turn_id not in kept and self._carried.get(lost.claim.turn_id) is lost:
                    self._drop(lost)
        self.last_renewal = asyncio.get_running_loop().time()

    def _drop(self, lost: _Carried) -> None:
        log.warning("lease_lost", turn_id=lost.claim.turn_id)
        lost.writer.lost.set()
        if lost.task is not None:
            lost.task.cancel()
