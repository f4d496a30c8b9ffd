"""The fenced, numbered log of each turn's frames. Pub/sub is the wake-up, the log is the data."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from schemas.frames import Phase, WireFrame
from schemas.ids import TurnId
from schemas.names import conversation_channel, fence_key, log_key

TTL_SECONDS: Final = 3_900
"""An hour for watchers to resume, and the longest turn."""

_SCRIPT = Path(__file__).with_name("frame_log.lua").read_text(encoding="utf-8")


class FramesUnavailable(Exception):
    """Redis did not take or give the frames. The turn goes on; watchers learn the end from the ledger."""


class Verdict(StrEnum):
    """What the fence said."""

    OK = "OK"
    FENCED = "FENCED"
    """Someone else owns the turn now: stop."""
    NOFENCE = "NOFENCE"
    """Our fence or a part of the log is gone: ask the ledger, then `rewrite`."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Where one turn's frames go."""

    turn_id: TurnId
    tenant: str
    conversation_id: str
    epoch: int

    @property
    def keys(self) -> tuple[str, str]:
        """Return the fence's and the log's key."""
        return fence_key(self.turn_id), log_key(self.turn_id)

    @property
    def channel(self) -> str:
        """Return the channel of the conversation."""
        return conversation_channel(self.tenant, self.conversation_id)


@dataclass(frozen=True, slots=True)
class Append:
    """Frames of one turn, contiguous from `first`."""

    stream: Stream
    first: int
    lines: Sequence[str]
    finished: bool = False
    """The model's output ended of its own accord with the last of these frames."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a sealer found: was the owner's fence there, what was visible, had the model finished."""

    armed: bool
    pieces: tuple[str, ...]
    finished: bool


class FrameLog:
    """Appending to, sealing and reading the logs. Each call is one round trip."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._run = redis.register_script(_SCRIPT)

    async def arm(self, stream: Stream, routed: WireFrame) -> Verdict:
        """Give the log to `stream.epoch` and publish `routed`. Repeating it changes nothing."""
        answer = await self._call(stream.keys, ["arm", stream.epoch, TTL_SECONDS, stream.channel, routed.encode()])
        return Verdict(cast("str", answer))

    async def append(self, appends: Sequence[Append]) -> list[Verdict]:
        """Append and publish frames of many turns in one script. Repeating it changes nothing."""
        keys: list[str] = []
        args: list[str | int] = ["append"]
        for a in appends:
            keys.extend(a.stream.keys)
            args.extend((a.stream.epoch, a.first, int(a.finished), a.stream.channel, len(a.lines)))
            args.extend(a.lines)
        answers = cast("list[str]", await self._call(keys, args))
        return [Verdict(answer) for answer in answers]

    async def rewrite(self, stream: Stream, frames: Sequence[WireFrame]) -> Verdict:
        """Write the whole log anew after Redis forgot it. Only an owner the ledger confirms may call this."""
        lines = [frame.encode() for frame in frames]
        answer = await self._call(stream.keys, ["rewrite", stream.epoch, TTL_SECONDS, *lines])
        return Verdict(cast("str", answer))

    async def seal(self, stream: Stream) -> Sealed | None:
        """Shut out every older epoch and return what was visible; None when a newer one holds the log."""
        answer = cast("list[str]", await self._call(stream.keys, ["seal", stream.epoch, TTL_SECONDS]))
        if answer[0] == "STALE":
            return None
        frames = [WireFrame.decode(line) for line in answer[2:]]
        pieces = tuple(content_of(frame) for frame in frames if frame.phase is Phase.STREAMING)
        return Sealed(armed=answer[0] == "armed", pieces=pieces, finished=answer[1] == "1")

    async def finish(self, stream: Stream, frames: Sequence[WireFrame]) -> Verdict:
        """Complete the log of a turn the ledger has ended; `frames` are all of the turn's, in order."""
        lines = [frame.encode() for frame in frames if frame.seq >= 1]
        answer = await self._call(stream.keys, ["finish", stream.epoch, TTL_SECONDS, stream.channel, *lines])
        return Verdict(cast("str", answer))

    async def read(self, turn_id: TurnId, after: int) -> list[WireFrame]:
        """Return the logged frames with a number above `after`, in order.

        Raises:
            FramesUnavailable: Redis does not answer.
        """
        try:
            lines = await self._redis.lrange(log_key(turn_id), max(after, 0), -1)
        except (RedisError, OSError) as error:
            raise FramesUnavailable("the frame log cannot be read: Redis does not answer") from error
        return [WireFrame.decode(line) for line in cast("list[str]", lines)]

    async def _call(self, keys: Sequence[str], args: Sequence[str | int]) -> object:
        try:
            return await self._run(keys=list(keys), args=list(args))
        except (RedisError, OSError) as error:
            raise FramesUnavailable("the frame log cannot be written: Redis does not answer") from error


def content_of(frame: WireFrame) -> str:
    """Return the visible content a frame carries."""
    delta = json.loads(frame.json)["choices"][0]["delta"]
    return str(delta.get("content", ""))
