"""What a watcher sees: numbered frames in the shape of OpenAI's `chat.completion.chunk`.

Sequence numbers of a turn: 0 `accepted`, 1 `routed`, 2… content, and one terminal frame last. Everything but
the live timing can be told again from the ledger's row, byte for byte (`frames_of_row` in `infra.postgres`).
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.ids import TurnId
from schemas.turns import TurnState

MODEL_NAME: Final = "fairlead"
SEQ_ACCEPTED: Final = 0
SEQ_ROUTED: Final = 1


class Phase(StrEnum):
    """Where the turn stands, as its watcher needs to know."""

    ACCEPTED = "accepted"
    ROUTED = "routed"
    STREAMING = "streaming"
    DONE = "done"
    TRUNCATED = "truncated"
    HANDED_OFF = "handed_off"
    FAILED = "failed"


TERMINAL_PHASES: Final = frozenset({Phase.DONE, Phase.TRUNCATED, Phase.HANDED_OFF, Phase.FAILED})

PHASE_OF_STATE: Final[dict[TurnState, Phase]] = {
    TurnState.ANSWERED: Phase.DONE,
    TurnState.TRUNCATED: Phase.TRUNCATED,
    TurnState.HANDED_OFF: Phase.HANDED_OFF,
    TurnState.BOUNDED: Phase.FAILED,
    TurnState.CANCELLED: Phase.FAILED,
    TurnState.REJECTED: Phase.FAILED,
    TurnState.PARKED: Phase.FAILED,
}

_FINISH_REASON: Final[dict[Phase, str]] = {
    Phase.DONE: "stop",
    Phase.TRUNCATED: "length",
    Phase.HANDED_OFF: "stop",
    Phase.FAILED: "stop",
}


@dataclass(frozen=True, slots=True)
class TurnStreamInfo:
    """What every frame of a turn repeats."""

    turn_id: TurnId
    conversation_id: str
    created: int
    """Unix seconds at which the turn was recorded; constant over the turn."""


@dataclass(frozen=True, slots=True)
class WireFrame:
    """A frame as it is logged, published and forwarded: `json` is sent to watchers untouched."""

    turn_id: TurnId
    seq: int
    phase: Phase
    json: str

    @property
    def terminal(self) -> bool:
        """Whether this frame ends the stream."""
        return self.phase in TERMINAL_PHASES

    def encode(self) -> str:
        """Return the line kept in Redis: a header that needs no parsing of JSON, then the JSON."""
        return f"{self.turn_id} {self.seq} {self.phase}\n{self.json}"

    @classmethod
    def decode(cls, line: str) -> "WireFrame":
        """Read what `encode` wrote.

        Raises:
            ValueError: the line is not one of ours.
        """
        header, newline, body = line.partition("\n")
        parts = header.split(" ")
        if not newline or len(parts) != 3:
            raise ValueError("not a frame: its header does not read 'turn seq phase'")
        return cls(TurnId(parts[0]), int(parts[1]), Phase(parts[2]), body)


def render(
    info: TurnStreamInfo, seq: int, phase: Phase, content: str | None = None, *, answered_in: TurnId | None = None
) -> WireFrame:
    """Return frame `seq` of a turn. The first frame names the role, terminal ones carry a `finish_reason`.

    The terminal frame of a coalesced turn names the turn whose answer is also its own: `answered_in`.
    """
    delta: dict[str, str] = {}
    if seq == SEQ_ACCEPTED:
        delta["role"] = "assistant"
    if content is not None:
        delta["content"] = content
    chunk = {
        "id": info.turn_id,
        "object": "chat.completion.chunk",
        "created": info.created,
        "model": MODEL_NAME,
        "choices": [{"index": 0, "delta": delta, "finish_reason": _FINISH_REASON.get(phase)}],
        "fairlead": {
            "turn_id": info.turn_id,
            "conversation_id": info.conversation_id,
            "seq": seq,
            "phase": phase.value,
            **({} if answered_in is None else {"answered_in": answered_in}),
        },
    }
    return WireFrame(info.turn_id, seq, phase, json.dumps(chunk, ensure_ascii=False, separators=(",", ":")))


def split_at(text: str, cuts: tuple[int, ...]) -> list[str]:
    """Return `text` cut into pieces of the given lengths: the content frames of a finished turn."""
    pieces: list[str] = []
    start = 0
    for length in cuts:
        pieces.append(text[start : start + length])
        start += length
    return pieces


def frames_of(
    info: TurnStreamInfo,
    *,
    routed: bool,
    content: str,
    cuts: tuple[int, ...],
    ended: Phase | None,
    closing: str | None = None,
    answered_in: TurnId | None = None,
) -> list[WireFrame]:
    """Tell a turn's frames again from what the ledger keeps of it.

    Args:
        info: what every frame repeats.
        routed: whether the turn was ever given to an agent.
        content: the visible content so far.
        cuts: length in characters of each content frame.
        ended: phase of the terminal frame, if the turn has ended.
        closing: content of the terminal frame: the bounded reply, or tags that close a cut answer.
        answered_in: the turn whose answer is also this one's, for the terminal frame.
    """
    frames = [render(info, SEQ_ACCEPTED, Phase.ACCEPTED)]
    if routed:
        frames.append(render(info, SEQ_ROUTED, Phase.ROUTED))
    first = len(frames)
    for index, piece in enumerate(split_at(content, cuts)):
        frames.append(render(info, first + index, Phase.STREAMING, piece))
    if ended is not None:
        frames.append(render(info, len(frames), ended, closing, answered_in=answered_in))
    return frames
