"""Ending a turn: the ledger first, then the terminal frame, then the next turn of the conversation."""

import asyncio
from dataclasses import replace
from typing import Final, assert_never

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog import get_logger

from infra.crash_points import reach
from infra.postgres.claims import Claim
from infra.postgres.settlement import Settled, Settlement, settle
from infra.postgres.statements import LedgerUnavailable
from infra.redis.frame_log import FrameLog, FramesUnavailable, Verdict
from infra.redis.wake import announce
from infra.telemetry import metrics
from infra.telemetry.tracing import current_traceparent
from schemas.citations import NOTHING_READ
from schemas.frames import PHASE_OF_STATE, frames_of
from schemas.outcomes import Answer, Answered, Bounded, Truncated
from schemas.policy import Policy
from schemas.turns import TurnState
from workers.answers.group import tell_group
from workers.answers.last_tier import offline_reply
from workers.answers.sanitise import to_text
from workers.answers.writer import FrameWriter

log = get_logger(__name__)

SETTLE_SECONDS: Final = 30.0
"""How long an owner tries to write the end down while PostgreSQL is away; afterwards its lease decides."""

_SHOWING: Final = (TurnState.STREAMING, TurnState.RUNNING, TurnState.FALLBACK)
"""A silent turn is answered straight from running or fallback: nothing was shown before."""


class Settler:
    """Writes endings down."""

    def __init__(self, *, engine: AsyncEngine, frames: FrameLog, redis: Redis, actor: str, policy: Policy) -> None:
        self._engine = engine
        self._frames = frames
        self._redis = redis
        self._actor = actor
        self._policy = policy

    async def settle(
        self, claim: Claim, turns_cut: int, writer: FrameWriter, ending: Answered | Truncated | Bounded
    ) -> None:
        """End the turn, tell its watchers, wake the next."""
        settlement = self._settlement(claim, turns_cut, ending)
        settled = await self._write(settlement)
        if settled is None:
            log.warning("settled_by_another_owner")
            return
        reach("after_final_before_publish")
        self._count(settlement, settled)
        await self._tell(writer, settlement)
        await tell_group(self._frames, settlement, settled.absorbed)
        if settled.next_turn is not None:
            await announce(self._redis, settled.next_turn)

    def _settlement(self, claim: Claim, turns_cut: int, ending: Answered | Truncated | Bounded) -> Settlement:
        match ending:
            case Answered(answer=answer):
                return replace(
                    _with_answer(claim, answer),
                    state=TurnState.ANSWERED,
                    attempt_state="succeeded",
                    turns_cut=turns_cut,
                    note=f"mended: {answer.mended}" if answer.mended else None,
                )
            case Truncated(answer=answer, closing=closing, error=error):
                metrics.TRUNCATIONS.labels(error.code).inc()
                return replace(
                    _with_answer(claim, answer),
                    from_states=(TurnState.STREAMING,),
                    state=TurnState.TRUNCATED,
                    closing=closing or None,
                    text=to_text(answer.html + closing),
                    reason=error.code,
                    attempt_state="failed",
                    error=error.code,
                    force_frontier=True,
                    turns_cut=turns_cut,
                )
            case Bounded(reason=reason, ordinal=ordinal, error=error):
                state, reply = self._policy.unanswered()
                source, read = "none", NOTHING_READ
                if self._policy.without_answer == "offline" and (made := offline_reply(claim, self._policy.answers)):
                    source, (reply, read) = "offline", made
                return replace(
                    _ended(claim),
                    from_states=(TurnState.RUNNING, TurnState.FALLBACK),
                    state=state,
                    closing=reply,
                    text=to_text(reply),
                    source=source,
                    read=read,
                    reason=reason,
                    ordinal=ordinal,
                    attempt_state="failed",
                    error=error.code if error else None,
                    letter=reason,
                    turns_cut=turns_cut,
                )
            case _:
                assert_never(ending)

    async def _write(self, settlement: Settlement) -> Settled | None:
        """Write until PostgreSQL has taken it or the lease will have ended anyway. Asking twice changes nothing."""
        give_up = asyncio.get_running_loop().time() + SETTLE_SECONDS
        pause = 0.1
        while True:
            try:
                return await settle(self._engine, settlement, actor=self._actor)
            except LedgerUnavailable as error:
                if asyncio.get_running_loop().time() > give_up:
                    raise
                log.warning("settling_again", error=str(error))
                await asyncio.sleep(pause)
                pause = min(2.0, pause * 2)

    def _count(self, settlement: Settlement, settled: Settled) -> None:
        state, agent = settlement.state.value, settlement.agent or "none"
        metrics.TURNS_SETTLED.labels(state, agent).inc()
        metrics.TURN_DURATION.labels(state).observe(settled.took)
        if settlement.source == "offline":
            metrics.OFFLINE_ANSWERS.labels(agent, state).inc()
        if settlement.letter is not None:
            metrics.DEAD_LETTERS.labels(settlement.letter.value).inc()
        log.info("turn_settled", state=state, agent=agent, source=settlement.source, seconds=round(settled.took, 3))

    async def _tell(self, writer: FrameWriter, settlement: Settlement) -> None:
        """Show the terminal frame. If Redis does not take it, watchers read the end from the ledger."""
        phase = PHASE_OF_STATE[settlement.state]
        try:
            if not writer.silent and not writer.waiting:
                [verdict] = await self._frames.append([writer.terminal(phase, settlement.closing)])
                if verdict is Verdict.OK:
                    return
            frames = frames_of(
                writer.info,
                routed=True,
                content=settlement.content,
                cuts=settlement.cuts,
                ended=phase,
                closing=settlement.closing,
            )
            await self._frames.finish(writer.stream, frames)
        except FramesUnavailable:
            log.warning("end_not_published")


def _ended(claim: Claim) -> Settlement:
    return Settlement(
        turn_id=claim.turn_id,
        tenant=claim.tenant,
        conversation_id=claim.conversation_id,
        seq=claim.seq,
        channel=claim.channel,
        agent=claim.agent,
        epoch=claim.epoch,
        from_states=_SHOWING,
        state=TurnState.BOUNDED,
        traceparent=current_traceparent(),
    )


def _with_answer(claim: Claim, answer: Answer) -> Settlement:
    return replace(
        _ended(claim),
        content=answer.html,
        text=to_text(answer.html),
        cuts=answer.cuts,
        source=answer.source,
        dimension=answer.dimension,
        ordinal=answer.ordinal,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        confidence=answer.confidence,
        read=answer.read,
    )
