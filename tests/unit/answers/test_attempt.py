"""One model call from its first byte to its end."""

import json
from collections.abc import AsyncGenerator

from infra.redis.frame_log import Stream
from schemas.completions import CompletionRequest, Delta, Finish, ModelClocks
from schemas.frames import TurnStreamInfo
from schemas.ids import TurnId
from schemas.outcomes import Answered
from workers.answers.attempt import run_attempt
from workers.answers.writer import FrameWriter

TURN = TurnId("00000000-0000-0000-0000-000000000001")


class Reciting:
    """A model that says what it is given."""

    name = "reciting"

    def __init__(self, said: str) -> None:
        self._said = said

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta | Finish]:
        """Say it."""
        for at in range(0, len(self._said), request.max_tokens):
            yield Delta(self._said[at : at + request.max_tokens])
        yield Finish("stop")

    async def aclose(self) -> None:
        """Hold nothing."""


async def test_what_nobody_sees_cannot_keep_the_answer_out_of_the_ledger() -> None:
    """A label with a NUL or of any length is cut to what PostgreSQL holds; the visible text has no NUL either."""
    said = json.dumps({"dimension": "bud\x00get" + "!" * 500, "html_response": "<p>a\x00b</p>"})
    request = CompletionRequest(TURN, 1, "m", (), {}, 7, ModelClocks(1, 1, 1, 1))
    writer = FrameWriter(stream=Stream(TURN, "acme", "c1", 1), info=TurnStreamInfo(TURN, "c1", 0))

    async def show(html: str) -> bool:
        writer.write(html)
        return True

    ending = await run_attempt(Reciting(said), request, writer, show, "primary")

    assert isinstance(ending, Answered)
    assert ending.answer.html == "<p>ab</p>"
    label = ending.answer.dimension or ""
    assert label.startswith("budget!")
    assert len(label) == 64
