"""Frames: OpenAI's chunk shape, and the same frames told again from the ledger."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from schemas.frames import PHASE_OF_STATE, Phase, TurnStreamInfo, WireFrame, frames_of, render, split_at
from schemas.ids import TurnId
from schemas.turns import TERMINAL

INFO = TurnStreamInfo(TurnId("00000000-0000-0000-0000-000000000001"), "c1", 1_700_000_000)


@given(st.text(), st.sampled_from(Phase), st.integers(0, 10_000))
def test_a_frame_survives_its_line_in_redis(content: str, phase: Phase, seq: int) -> None:
    """Whatever the text, a frame read back from its encoded line is the same frame."""
    frame = render(INFO, seq, phase, content)
    assert WireFrame.decode(frame.encode()) == frame
    assert "\x1e" not in frame.encode()


@pytest.mark.parametrize("line", ["", "x", "a b\n{}", "a b c d\n{}", "a x done\n{}", "a 1 unknown\n{}"])
def test_a_line_that_is_no_frame_is_refused(line: str) -> None:
    """Foreign data on the channel is a ValueError, not a frame."""
    with pytest.raises(ValueError, match=r"."):
        WireFrame.decode(line)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_frame_is_a_chunk_of_the_official_client(phase: Phase) -> None:
    """Every frame validates as OpenAI's chat.completion.chunk, terminal ones with a finish reason."""
    chunk = ChatCompletionChunk.model_validate_json(render(INFO, 3, phase, "text").json)
    assert chunk.id == INFO.turn_id
    assert (chunk.choices[0].finish_reason is not None) == render(INFO, 3, phase).terminal


@given(st.lists(st.text(min_size=1), max_size=20), st.booleans(), st.sampled_from([*Phase, None]))
def test_a_turn_told_again_is_numbered_without_gap(pieces: list[str], routed: bool, ended: Phase | None) -> None:
    """From content and cuts come the same pieces, numbered 0, 1, 2 … with at most one terminal frame, last."""
    cuts = tuple(map(len, pieces))
    frames = frames_of(INFO, routed=routed, content="".join(pieces), cuts=cuts, ended=ended, closing="bye")

    assert [frame.seq for frame in frames] == list(range(len(frames)))
    shown = [json.loads(f.json)["choices"][0]["delta"].get("content") for f in frames if f.phase is Phase.STREAMING]
    extra = ["bye"] if ended is Phase.STREAMING else []
    assert shown == pieces + extra
    assert split_at("".join(pieces), cuts) == pieces


def test_every_ending_has_a_terminal_phase() -> None:
    """No terminal state is without a frame that tells the watcher."""
    assert set(PHASE_OF_STATE) == TERMINAL
    assert all(render(INFO, 1, phase).terminal for phase in PHASE_OF_STATE.values())
