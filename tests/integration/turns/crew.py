"""A worker process and what it may do: the executor's steps, one at a time, knowing only its own claim."""

from dataclasses import dataclass, replace
from typing import Final

from infra.postgres.claims import Checkpoint, Claim
from infra.postgres.statements import LedgerUnavailable
from schemas.completions import Incomplete
from schemas.dead_letters import DeadLetterReason
from schemas.outcomes import Answer, Answered, Bounded, Truncated
from schemas.turns import TurnState
from tests.integration.turns.promises import Ledger, Promises
from tests.support.pipeline import Pipeline
from workers.answers.publisher import Publisher
from workers.answers.writer import FrameWriter
from workers.executor import Executor

CUT_OFF: Final = Incomplete("the stream broke")


@dataclass(eq=False)
class Worker:
    """What one worker process knows of one turn."""

    claim: Claim
    ordinal: int
    writer: FrameWriter | None = None
    busy: bool = False
    """Whether it stands in the middle of something."""
    ended: bool = False
    """Whether its model finished; the settlement comes next."""
    said: int = 0


def verbs(w: Worker) -> tuple[str, ...]:
    """Return what this worker can do now; what is named twice is done more often."""
    if w.writer is None:
        return ("arm", "arm", "arm", "die")
    if w.ended:
        return ("settle", "settle", "settle", "publish", "die")
    if w.writer.started and not w.writer.silent:
        return (*("say",) * 3, "publish", "publish", "checkpoint", "checkpoint", "finish", "end", "break", "die")
    # Nothing was shown: the turn has only begun, or Redis was away and it is answered silently.
    return ("say", "say", "fail", "checkpoint", "die", *(("end",) * 3 if w.writer.started else ()))


class Crew:
    """All workers there are."""

    def __init__(self, executor: Executor, promises: Promises, ledger: Ledger) -> None:
        self.executor = executor
        self.promises = promises
        self.ledger = ledger
        self.workers: list[Worker] = []

    async def step(self, worker: Worker, verb: str, *, flush: bool) -> None:
        """Do one thing; a worker that cannot reach the ledger leaves its turn to the lease."""
        try:
            await self._step(worker, verb, flush=flush)
        except LedgerUnavailable:
            self.leave(worker)

    async def _step(self, worker: Worker, verb: str, *, flush: bool) -> None:
        match verb:
            case "arm":
                await self._arm(worker)
            case "say":
                await self._say(worker, flush=flush)
            case "publish":
                await self._publish(worker)
            case "checkpoint":
                await self._checkpoint(worker)
            case "fail":
                await self._fail(worker)
            case "finish":
                self._finish(worker)
            case "end":
                self._finish(worker)
                await self._settle(worker, Answered(_answer(worker)))
            case "settle":
                await self._settle(worker, Answered(_answer(worker)))
            case "break":
                await self._settle(worker, Truncated(_answer(worker), "</p>", CUT_OFF))
            case _:
                self.leave(worker)

    def leave(self, worker: Worker) -> None:
        """The worker is done with its turn, or dead."""
        if worker in self.workers:
            self.workers.remove(worker)

    async def _arm(self, worker: Worker) -> None:
        worker.writer = await self.executor.arm(worker.claim)
        if worker.writer.lost.is_set():
            self.leave(worker)
        else:
            self.promises.ask(worker.claim.turn_id, worker.ordinal)

    async def _say(self, worker: Worker, *, flush: bool) -> None:
        writer = worker.writer
        if writer is None:
            return
        piece = f"{'<p>' if not worker.said else ''}[{worker.ordinal}] {worker.said} "
        worker.said += 1
        if not await self.executor.show(worker.claim, writer, worker.ordinal, piece):
            self.leave(worker)
        elif flush and not writer.silent:
            await self._publish(worker)

    async def _publish(self, worker: Worker) -> None:
        assert worker.writer is not None
        await self.executor.publisher.flush([worker.writer])
        [row] = await self.ledger.fetch(
            "SELECT epoch, state FROM turns WHERE turn_id = $1::text::uuid", worker.claim.turn_id
        )
        ours = (row["epoch"], row["state"]) == (worker.claim.epoch, TurnState.STREAMING)
        assert not (ours and worker.writer.lost.is_set()), "I12: the turn's present owner was taken for an old one"

    async def _checkpoint(self, worker: Worker) -> None:
        claim, writer = worker.claim, worker.writer
        assert writer is not None
        point = Checkpoint(claim.turn_id, claim.epoch, writer.content, writer.cuts)
        if claim.turn_id not in await self.executor.claims.renew([point]):
            writer.lost.set()
            self.leave(worker)

    async def _fail(self, worker: Worker) -> None:
        assert worker.writer is not None
        if worker.ordinal == 2:
            reason = DeadLetterReason.BACKEND_FAILED_TWICE
            await self._settle(worker, Bounded(reason=reason, ordinal=2, error=CUT_OFF))
        elif await self.executor.claims.latch_fallback(worker.claim, CUT_OFF.code):
            worker.ordinal, worker.said = 2, 0
            worker.writer.forget()
            self.promises.ask(worker.claim.turn_id, 2)
        else:
            self.leave(worker)

    def _finish(self, worker: Worker) -> None:
        assert worker.writer is not None
        worker.writer.finish()
        worker.ended = True

    async def _settle(self, worker: Worker, ending: Answered | Truncated | Bounded) -> None:
        writer = worker.writer
        assert writer is not None
        # As `Publisher.drain`: until the log has everything, the turn is lost, or Redis does not answer.
        for _ in range(3):
            if writer.waiting and not writer.silent and not writer.lost.is_set():
                await self._publish(worker)
        if isinstance(ending, Answered | Truncated):
            ending = replace(ending, answer=_answer(worker))
        await self.executor.settler.settle(worker.claim, 0, writer, ending)
        self.leave(worker)


def _answer(worker: Worker) -> Answer:
    assert worker.writer is not None
    return Answer(
        html=worker.writer.content,
        cuts=worker.writer.cuts,
        dimension=None,
        source="fallback" if worker.ordinal == 2 else "primary",
        ordinal=worker.ordinal,
        model=worker.claim.model,
    )


def without_a_clock(p: Pipeline) -> Executor:
    """Return the worker's parts with a publisher that publishes only when it is told to."""
    base = p.runtime.executor

    async def still_owner(writer: FrameWriter) -> bool:
        return await base.claims.owns_stream(writer.stream.turn_id, writer.stream.epoch)

    return replace(base, publisher=Publisher(base.frames, still_owner))
