"""The frames of a turn: every one once, in order, without a gap, ended by the terminal one.

Three sources, none of them trusted alone. Live frames come over pub/sub, which may lose any of them. The frame
log has them all, unless Redis forgot it. The ledger has everything a turn said once it has ended, and can tell
every frame again byte for byte. A watcher subscribes first, then reads log and ledger, then follows live frames;
whenever a number is missing, a subscription was interrupted, or nothing came for a while, it reads again. With
Redis down it lives off the ledger alone: the answer then appears at its end instead of as it is typed.

Every frame of a turn carries the same `created`, the time the ledger recorded the turn. The first frame,
`accepted`, is made here and waits for that moment (a few milliseconds after acceptance), or takes it from the
first frame heard if the ledger does not answer.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.postgres.idempotency import reserved_conversation
from infra.postgres.statements import LedgerUnavailable
from infra.postgres.views import TurnView, frames_of_view, load_turn
from infra.redis.frame_log import FrameLog, FramesUnavailable
from infra.redis.hub import Heard, Hub, Subscription
from infra.telemetry.metrics import REREADS
from producers.admission import RecentTurns
from schemas.frames import SEQ_ACCEPTED, Phase, TurnStreamInfo, WireFrame, render
from schemas.ids import TurnId
from schemas.names import conversation_channel

FROM_THE_START: Final = -1
"""The position of a watcher that has seen nothing."""

RECONCILE_SECONDS: Final = 3.0
"""How long nothing may come before log and ledger are read again: the only cure for a lost last frame."""

UNKNOWN_SECONDS: Final = 1.0
"""How long a turn nobody has heard of may take to appear: another gateway may just have accepted it."""

MAX_WATCH_SECONDS: Final = 1_800.0
"""A watcher of a turn that does not end is let go and may come back; no deadline of a turn is longer."""

_HEAL_SECONDS = 0.25
_WAITING_STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Located:
    """A turn and where its frames are published."""

    turn_id: TurnId
    tenant: str
    conversation_id: str

    @property
    def channel(self) -> str:
        """Return the Redis channel of its conversation."""
        return conversation_channel(self.tenant, self.conversation_id)


class Telling:
    """What one watcher has been told. Pure: it is offered frames in any order, repeated or not."""

    def __init__(self, after: int = FROM_THE_START) -> None:
        self.last: int = after
        self.ended: bool = False
        self.gap: bool = False
        """Whether a frame came whose predecessor has not been told."""

    @property
    def begun(self) -> bool:
        """Whether the first frame is behind us."""
        return self.last >= SEQ_ACCEPTED

    def offer(self, frames: Iterable[WireFrame]) -> list[WireFrame]:
        """Return the frames to tell now: the next ones in line."""
        fresh: list[WireFrame] = []
        self.gap = False
        for frame in frames:
            if self.ended:
                break
            if frame.seq == self.last + 1:
                fresh.append(frame)
                self.last = frame.seq
                self.ended = frame.terminal
            elif frame.seq > self.last:
                self.gap = True
            elif frame.terminal:
                self.ended = True
        return fresh


class Watcher:
    """Makes watchers of turns. One per process."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        hub: Hub,
        frames: FrameLog,
        recent: RecentTurns,
        draining: asyncio.Event,
        reconcile_seconds: float = RECONCILE_SECONDS,
        unknown_seconds: float = UNKNOWN_SECONDS,
    ) -> None:
        self._engine = engine
        self._hub = hub
        self._frames = frames
        self._recent = recent
        self._draining = draining
        self._reconcile = reconcile_seconds
        self._unknown = unknown_seconds

    async def locate(self, turn_id: TurnId, *, tenant: str) -> Located | None:
        """Return where a turn of this tenant is watched, recorded or only accepted; None if there is none.

        Raises:
            LedgerUnavailable: the ledger does not answer and this process has not accepted the turn itself.
        """
        known = self._recent.find(turn_id)
        if known is not None:
            return Located(turn_id, known.tenant, known.conversation_id) if known.tenant == tenant else None
        due = time.monotonic() + self._unknown
        asked_keys = False
        while True:
            view = await load_turn(self._engine, turn_id)
            if view is not None:
                return Located(turn_id, tenant, view.conversation_id) if view.tenant_id == tenant else None
            if not asked_keys:
                asked_keys = True
                conversation = await reserved_conversation(self._engine, tenant=tenant, turn_id=turn_id)
                if conversation is not None:
                    return Located(turn_id, tenant, conversation)
            if time.monotonic() >= due:
                return None
            await asyncio.sleep(min(0.1, self._unknown))

    async def watch(self, turn: Located, after: int = FROM_THE_START) -> AsyncIterator[WireFrame]:
        """Yield every frame of the turn above `after`, once and in order; return after the terminal one."""
        async with aclosing(self.batches(turn, Telling(after))) as batches:
            async for frames in batches:
                for frame in frames:
                    yield frame

    async def batches(
        self, turn: Located, telling: Telling, *, within: float = MAX_WATCH_SECONDS
    ) -> AsyncGenerator[Sequence[WireFrame]]:
        """Yield the same frames, as many at a time as there are.

        An empty batch means that the turn still runs and nothing new came for `reconcile_seconds` or less. Ends
        early, with `telling.ended` False, when the process drains or after `within` seconds: the watcher comes
        back with its position.
        """
        due = time.monotonic() + within
        async with self._hub.watch(turn.channel) as ear:
            fresh = await self._read_again(turn, telling)
            waits, moved_at = 0, time.monotonic()
            while True:
                if fresh or not telling.ended:
                    yield fresh
                if telling.ended or self._draining.is_set() or time.monotonic() > due:
                    return
                heard = await ear.hear(min(self._patience(telling, ear, waits), max(0.0, due - time.monotonic())))
                # Other turns of the conversation may speak all the time; silence is this turn's own.
                silent = time.monotonic() - moved_at >= self._reconcile
                fresh = await self._follow(turn, telling, heard, silent=silent)
                waits += 1
                if fresh or silent:
                    moved_at = time.monotonic()

    def _patience(self, telling: Telling, ear: Subscription, waits: int) -> float:
        if not telling.begun:
            return _WAITING_STEPS[min(waits, len(_WAITING_STEPS) - 1)]
        # Deaf: the ledger alone is asked, so ask it more often.
        return self._reconcile if ear.confirmed else min(1.0, self._reconcile)

    async def _follow(self, turn: Located, telling: Telling, heard: Heard, *, silent: bool) -> list[WireFrame]:
        """Tell what was heard; read again if something is missing, was interrupted, or nothing came."""
        if heard.missed is not None:
            REREADS.labels(heard.missed).inc()
            return await self._read_again(turn, telling)
        mine = [frame for frame in heard.frames if frame.turn_id == turn.turn_id]
        if silent or not telling.begun or not heard.frames:
            return await self._read_again(turn, telling)
        fresh = telling.offer(mine)
        if telling.gap:
            REREADS.labels("gap").inc()
            fresh += await self._heal(turn, telling)
        return fresh

    async def _heal(self, turn: Located, telling: Telling) -> list[WireFrame]:
        """Read again; if neither log nor ledger can close the gap yet, let a moment pass before trying again."""
        fresh = await self._read_again(turn, telling)
        if telling.gap and not telling.ended:
            await asyncio.sleep(_HEAL_SECONDS)
        return fresh

    async def _read_again(self, turn: Located, telling: Telling) -> list[WireFrame]:
        """Tell everything that log and ledger have beyond what was told."""
        logged = await self._logged(turn.turn_id, telling.last)
        fresh: list[WireFrame] = []
        if telling.begun and (told := telling.offer(logged)) and not telling.gap:
            return told
        view = await self._view(turn.turn_id)
        info = view.info if view is not None else _info_of(turn, logged)
        if info is None and not telling.begun:
            return fresh
        if info is not None:
            fresh += telling.offer([render(info, SEQ_ACCEPTED, Phase.ACCEPTED)])
        fresh += telling.offer(logged)
        if view is not None:
            fresh += telling.offer(frames_of_view(view))
        fresh += telling.offer(logged)
        return fresh

    async def _logged(self, turn_id: TurnId, after: int) -> list[WireFrame]:
        try:
            return await self._frames.read(turn_id, after)
        except FramesUnavailable:
            return []
        except ValueError:
            _log.warning("frame_log_undecodable", turn_id=turn_id)
            return []

    async def _view(self, turn_id: TurnId) -> TurnView | None:
        try:
            return await load_turn(self._engine, turn_id)
        except LedgerUnavailable:
            return None


def _info_of(turn: Located, logged: Sequence[WireFrame]) -> TurnStreamInfo | None:
    """Return what every frame repeats, as the first logged frame has it."""
    if not logged:
        return None
    try:
        created = int(json.loads(logged[0].json)["created"])
    except (ValueError, KeyError, TypeError):
        _log.warning("frame_without_created", turn_id=turn.turn_id)
        return None
    return TurnStreamInfo(turn.turn_id, turn.conversation_id, created)
