"""One model call from its first byte to its end."""

import json
from collections.abc import AsyncGenerator

from infra.redis.frame_log import Stream
from schemas.completions import CompletionRequest, Delta, Finish, ModelClocks
from schemas.frames import TurnStreamInfo
from schemas.guardrail_policy import LinkPolicy
from schemas.ids import TurnId
from schemas.outcomes import Answered
from workers.answers.attempt import Show, run_attempt
from workers.answers.sanitise import LINK_REL
from workers.answers.writer import FrameWriter
from workers.guardrails.links import link_rule, no_link

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


async def test_a_link_that_the_turn_does_not_allow_is_never_shown() -> None:
    """Links of an answer pass the rule of the turn while it streams; without a rule there are none."""
    said = json.dumps(
        {"html_response": '<p><a href="https://a.example/x">a</a> <a href="https://b.example/">b</a></p>'}
    )
    for links, shown in (
        (link_rule(LinkPolicy(hosts=("a.example",))), f'<p><a href="https://a.example/x" rel="{LINK_REL}">a</a> b</p>'),
        (no_link, "<p>a b</p>"),
    ):
        request = CompletionRequest(TURN, 1, "m", (), {}, 7, ModelClocks(1, 1, 1, 1))
        writer = FrameWriter(stream=Stream(TURN, "acme", "c1", 1), info=TurnStreamInfo(TURN, "c1", 0))
        ending = await run_attempt(Reciting(said), request, writer, _writing(writer), "primary", links=links)
        assert isinstance(ending, Answered)
        assert ending.answer.html == shown


def _writing(writer: FrameWriter) -> Show:
    async def show(html: str) -> bool:
        writer.write(html)
        return True

    return show


async def test_what_nobody_sees_cannot_keep_the_answer_out_of_the_ledger() -> None:
    """A label with a NUL or of any length is cut to what PostgreSQL holds; the visible text has no NUL either."""
    said = json.dumps({"dimension": "bud\x00get" + "!" * 500, "html_response": "<p>a\x00b</p>"})
    request = CompletionRequest(TURN, 1, "m", (), {}, 7, ModelClocks(1, 1, 1, 1))
    writer = FrameWriter(stream=Stream(TURN, "acme", "c1", 1), info=TurnStreamInfo(TURN, "c1", 0))

    ending = await run_attempt(Reciting(said), request, writer, _writing(writer), "primary")

    assert isinstance(ending, Answered)
    assert ending.answer.html == "<p>ab</p>"
    label = ending.answer.dimension or ""
    assert label.startswith("budget!")
    assert len(label) == 64
