"""The turns that ended with the head of their group: counted, and told to their watchers."""

from collections.abc import Sequence

from structlog import get_logger

from infra.postgres.coalescing import Absorbed
from infra.postgres.settlement import Settlement
from infra.redis.frame_log import FrameLog, FramesUnavailable, Stream
from infra.telemetry import metrics
from schemas.frames import PHASE_OF_STATE, TurnStreamInfo, frames_of

log = get_logger(__name__)


async def tell_group(frames: FrameLog, head: Settlement, absorbed: Sequence[Absorbed]) -> None:
    """Count and show the ends of these turns. What Redis does not take, watchers read from the ledger."""
    for turn in absorbed:
        metrics.TURNS_SETTLED.labels(head.state.value, head.agent or "none").inc()
        metrics.TURN_DURATION.labels(head.state.value).observe(turn.took)
    if absorbed:
        log.info("group_settled", turns=len(absorbed), state=head.state.value)
    try:
        for turn in absorbed:
            await _tell(frames, head, turn)
    except FramesUnavailable:
        log.warning("group_end_not_published", turns=len(absorbed))


async def _tell(frames: FrameLog, head: Settlement, turn: Absorbed) -> None:
    told = frames_of(
        TurnStreamInfo(turn.turn_id, head.conversation_id, turn.created),
        routed=False,
        content="",
        cuts=(),
        ended=PHASE_OF_STATE[head.state],
        answered_in=head.turn_id,
    )
    await frames.finish(Stream(turn.turn_id, head.tenant, head.conversation_id, turn.epoch), told)
