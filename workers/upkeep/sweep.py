"""One sweep over what nobody is working on any more. Every step may run in several processes at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog import get_logger

from infra.celery.dispatch import Dispatcher, Hint
from infra.crash_points import reach
from infra.postgres.settlement import ANY_UNSEEN, Settlement, settle
from infra.postgres.statements import LedgerUnavailable
from infra.postgres.sweeps import Abandoned, Sweeps
from infra.redis.frame_log import FrameLog, FramesUnavailable, Sealed, Stream
from infra.redis.wake import announce
from infra.telemetry import metrics
from schemas.agents import Lane
from schemas.dead_letters import DeadLetterReason
from schemas.frames import PHASE_OF_STATE, TurnStreamInfo, frames_of
from schemas.ids import TurnId
from schemas.turns import TurnState
from workers.answers.sanitise import HtmlStream, to_text

log = get_logger(__name__)

AT_A_TIME: Final = 16
"""Turns that one sweep ends beside each other: while Redis does not answer, each of them waits for it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sweeper:
    """The steps of upkeep; `run_once` is all of them."""

    engine: AsyncEngine
    sweeps: Sweeps
    frames: FrameLog
    redis: Redis
    dispatcher: Dispatcher
    actor: str
    bounded_reply: str

    async def run_once(self) -> None:
        """Give every turn that lost its way a way to its end."""
        await self.start_stuck_heads()
        await self.resend_lost_hints()
        await self.rescue_unseen()
        await self.seal_abandoned_streams()
        await self.bound_hopeless()

    async def start_stuck_heads(self) -> None:
        """Announce heads of conversations that no orchestrator prepares."""
        await _each(await self.sweeps.wakeable(), self._announce)

    async def _announce(self, turn_id: TurnId) -> None:
        await announce(self.redis, turn_id)

    async def resend_lost_hints(self) -> None:
        """Send hints again for turns that still wait in a lane."""
        due = await self.sweeps.rehint()
        if due:
            log.info("hints_resent", turns=len(due))
            await self.dispatcher.send([Hint(turn_id, lane) for turn_id, lane in due])

    async def rescue_unseen(self) -> None:
        """Turns whose lane is late, or whose worker is gone before it showed anything, go to the frontier."""
        for reason, turns in (
            (DeadLetterReason.QUEUE_DEADLINE, await self.sweeps.pass_queue_deadline()),
            (DeadLetterReason.WORKER_LOST, await self.sweeps.expire_unseen()),
        ):
            await self._hint_rescue(reason, turns)

    async def _hint_rescue(self, reason: DeadLetterReason, turns: list[TurnId]) -> None:
        if not turns:
            return
        reach("after_letter")
        metrics.RESCUES.labels(reason.value).inc(len(turns))
        metrics.DEAD_LETTERS.labels(reason.value).inc(len(turns))
        log.warning("turns_rescued", reason=reason.value, turns=len(turns))
        await self.dispatcher.send([Hint(turn_id, Lane.FRONTIER_FALLBACK) for turn_id in turns])

    async def seal_abandoned_streams(self) -> None:
        """Close streams whose worker is gone: what was visible stays."""
        await _each(await self.sweeps.start_sealing(), self._seal)

    async def _seal(self, turn: Abandoned) -> None:
        reach("after_sealing")
        try:
            sealed = await self.frames.seal(_stream(turn))
        except FramesUnavailable:
            log.warning("sealing_waits", turn_id=turn.turn_id)
            return
        if sealed is not None:
            reach("after_seal")
            await self._after_seal(turn, sealed)

    async def _after_seal(self, turn: Abandoned, sealed: Sealed) -> None:
        if sealed.pieces:
            content, cuts = "".join(sealed.pieces), tuple(map(len, sealed.pieces))
            await self._end_shown(turn, content, cuts, whole=sealed.finished)
        elif sealed.armed:
            if await self.sweeps.sealed_unseen(turn):
                await self._hint_rescue(DeadLetterReason.WORKER_LOST, [turn.turn_id])
        elif turn.content:
            # Redis forgot the turn. The checkpoint is what is known to have been shown.
            await self._end_shown(turn, turn.content, turn.cuts, whole=False)
        else:
            await self._bound(turn, DeadLetterReason.SEAL_UNKNOWN, letter=True)

    async def _end_shown(self, turn: Abandoned, content: str, cuts: tuple[int, ...], *, whole: bool) -> None:
        await self._settle(
            turn,
            replace(
                _ended(turn),
                from_states=(TurnState.SEALING,),
                state=TurnState.ANSWERED if whole else TurnState.TRUNCATED,
                content=content,
                text=to_text(content),
                cuts=cuts,
                closing=None if whole else _closers(content) or None,
                source="fallback" if turn.ordinal == 2 else "primary",
                reason=None if whole else "worker_lost",
                ordinal=turn.ordinal,
                attempt_state="succeeded" if whole else "abandoned",
                error=None if whole else "worker_lost",
                force_frontier=not whole,
            ),
        )

    async def bound_hopeless(self) -> None:
        """Turns that no model will answer any more end with the bounded reply."""
        await _each(await self.sweeps.fence_hopeless(), self._bound_hopeless)

    async def _bound_hopeless(self, turn: Abandoned) -> None:
        # A turn that was rescued before has its dead letter already.
        known = turn.reason is not None
        await self._bound(turn, turn.reason or DeadLetterReason.TURN_DEADLINE, letter=not known)

    async def _bound(self, turn: Abandoned, reason: str, *, letter: bool) -> None:
        await self._settle(
            turn,
            replace(
                _ended(turn),
                closing=self.bounded_reply,
                text=to_text(self.bounded_reply),
                reason=str(reason),
                letter=DeadLetterReason(reason) if letter else None,
            ),
        )

    async def _settle(self, turn: Abandoned, settlement: Settlement) -> None:
        settled = await settle(self.engine, settlement, actor=self.actor)
        if settled is None:
            return
        metrics.TURNS_SETTLED.labels(settlement.state.value, settlement.agent or "none").inc()
        metrics.TURN_DURATION.labels(settlement.state.value).observe(settled.took)
        log.warning(
            "turn_ended_by_upkeep", turn_id=turn.turn_id, state=settlement.state.value, reason=settlement.reason
        )
        await self._tell(turn, settlement)
        if settled.next_turn is not None:
            await announce(self.redis, settled.next_turn)

    async def _tell(self, turn: Abandoned, settlement: Settlement) -> None:
        frames = frames_of(
            TurnStreamInfo(turn.turn_id, turn.conversation_id, turn.created),
            routed=turn.routed,
            content=settlement.content,
            cuts=settlement.cuts,
            ended=PHASE_OF_STATE[settlement.state],
            closing=settlement.closing,
        )
        try:
            await self.frames.finish(_stream(turn), frames)
        except FramesUnavailable:
            log.warning("end_not_published", turn_id=turn.turn_id)


async def _each(turns: Sequence[T], step: Callable[[T], Awaitable[None]]) -> None:
    """Take a step for each turn, several at a time. One that cannot be taken is the next sweep's, and nobody else's."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def take(turn: T) -> None:
        async with places:
            try:
                await step(turn)
            except LedgerUnavailable as error:
                log.warning("sweep_waits", error=str(error))
            except Exception:
                log.exception("sweep_step_failed", turn_id=turn.turn_id if isinstance(turn, Abandoned) else turn)

    await asyncio.gather(*map(take, turns))


def _ended(turn: Abandoned) -> Settlement:
    return Settlement(
        turn_id=turn.turn_id,
        tenant=turn.tenant,
        conversation_id=turn.conversation_id,
        seq=turn.seq,
        channel=turn.channel,
        agent=turn.agent,
        epoch=turn.epoch,
        from_states=(*ANY_UNSEEN, TurnState.SEALING),
        state=TurnState.BOUNDED,
        traceparent=turn.traceparent,
    )


def _stream(turn: Abandoned) -> Stream:
    return Stream(turn.turn_id, turn.tenant, turn.conversation_id, turn.epoch)


def _closers(content: str) -> str:
    html = HtmlStream()
    html.feed(content)
    return html.closers()
