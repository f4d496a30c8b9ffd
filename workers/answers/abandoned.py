"""Ending turns that no agent has, or whose owner is gone: fenced for us in the ledger, told to their watchers."""

from dataclasses import dataclass, replace
from html import escape

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog import get_logger

from infra.postgres.settlement import ANY_UNSEEN, Settlement, settle
from infra.postgres.sweeps import Abandoned
from infra.redis.frame_log import FrameLog, FramesUnavailable, Stream
from infra.redis.wake import announce
from infra.telemetry import metrics
from schemas.dead_letters import DeadLetterReason
from schemas.frames import PHASE_OF_STATE, TurnStreamInfo, frames_of
from schemas.keepers import TAKEN_OVER
from schemas.policy import Policy
from schemas.turns import TurnState
from workers.answers.group import tell_group
from workers.answers.sanitise import HtmlStream, to_text
from workers.guardrails.links import any_link

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AbandonedSettler:
    """Writes the ends of abandoned turns down."""

    engine: AsyncEngine
    frames: FrameLog
    redis: Redis
    actor: str
    policy: Policy

    async def unanswered(self, turn: Abandoned, reason: str, *, letter: bool, parked: bool = False) -> None:
        """End a turn that nobody saw anything of: its visitor gets the bounded reply or a human.

        What a person wrote is shown instead, and where a person has the conversation the turn is theirs.

        Args:
            turn: fenced for us.
            reason: why.
            letter: whether this needs a dead letter; one that left its lane before has it.
            parked: whether the dead letter waits for an operator.
        """
        if turn.said or turn.kept:
            await self.persons(turn)
            return
        state, reply = self.policy.unanswered(parked=parked)
        await self._settle(
            turn,
            replace(
                _ended(turn),
                state=state,
                closing=reply,
                text=to_text(reply),
                reason=str(reason),
                letter=DeadLetterReason(reason) if letter else None,
            ),
        )

    async def refused(self, turn: Abandoned, *, reply: str, reason: str, note: str) -> bool:
        """End a turn that no model is asked about; its visitor reads why. False: a person has the conversation.

        Args:
            turn: ours, being prepared.
            reply: plain text for the visitor.
            reason: what its message is, in one word.
            note: how that was seen, without a word of the visitor's.
        """
        closing = f"<p>{escape(reply, quote=False)}</p>"
        told = replace(_ended(turn), state=TurnState.REJECTED, closing=closing, text=reply, reason=reason, note=note)
        return await self._settle(turn, told)

    async def persons(self, turn: Abandoned) -> None:
        """Show what a person wrote, or leave the visitor to the person who has the conversation, saying so once."""
        await (self._said(turn) if turn.said else self._taken_over(turn))

    async def _taken_over(self, turn: Abandoned) -> None:
        reply = None if turn.told else self.policy.handoff_reply
        await self._settle(
            turn,
            replace(
                _ended(turn),
                state=TurnState.HANDED_OFF,
                closing=reply,
                text=to_text(reply or ""),
                reason=TAKEN_OVER,
            ),
        )

    async def _said(self, turn: Abandoned) -> None:
        await self._settle(
            turn,
            replace(
                _ended(turn),
                state=TurnState.ANSWERED,
                content=turn.content,
                text=to_text(turn.content),
                cuts=turn.cuts,
                source="human",
            ),
        )

    async def shown(self, turn: Abandoned, content: str, cuts: tuple[int, ...], *, whole: bool) -> None:
        """End a sealed stream with what was visible: `whole` if its model had finished."""
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

    async def _settle(self, turn: Abandoned, settlement: Settlement) -> bool:
        settled = await settle(self.engine, settlement, actor=self.actor)
        if settled is None:
            return False
        metrics.TURNS_SETTLED.labels(settlement.state.value, settlement.agent or "none").inc()
        metrics.TURN_DURATION.labels(settlement.state.value).observe(settled.took)
        if settlement.letter is not None:
            metrics.DEAD_LETTERS.labels(settlement.letter.value).inc()
        if settlement.state is TurnState.REJECTED:
            log.info("turn_refused", turn_id=turn.turn_id, reason=settlement.reason, why=settlement.note)
        elif turn.said or turn.kept:
            log.info("persons_turn_ended", turn_id=turn.turn_id, state=settlement.state.value)
        else:
            log.warning(
                "abandoned_turn_ended", turn_id=turn.turn_id, state=settlement.state.value, reason=settlement.reason
            )
        await self._tell(turn, settlement)
        await tell_group(self.frames, settlement, settled.absorbed)
        if settled.next_turn is not None:
            await announce(self.redis, settled.next_turn)
        return True

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
            await self.frames.finish(stream_of(turn), frames)
        except FramesUnavailable:
            log.warning("end_not_published", turn_id=turn.turn_id)


def stream_of(turn: Abandoned) -> Stream:
    """Return the stream of an abandoned turn, at the epoch that fenced it."""
    return Stream(turn.turn_id, turn.tenant, turn.conversation_id, turn.epoch)


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


def _closers(content: str) -> str:
    html = HtmlStream(links=any_link)
    html.feed(content)
    return html.closers()
