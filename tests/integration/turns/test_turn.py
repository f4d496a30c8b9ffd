"""One turn on real PostgreSQL and Redis, with model simulators that fail on demand."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import cast

import pytest
from structlog.testing import capture_logs

from infra.celery.dispatch import Dispatcher
from infra.policy import load_policy
from infra.redis.client import create_redis
from infra.redis.frame_log import FrameLog
from schemas.agents import Agent, Lane
from schemas.events import TurnSettled
from schemas.frames import Phase
from schemas.ids import TurnId
from schemas.names import CHANNEL_WAKE, TOPIC_RESULTS
from schemas.turns import TRANSITIONS, TurnState
from simulators.control import FaultKind
from tests.support.pipeline import Pipeline, content_of, nothing_known, pipeline, quick, until
from workers.agents.prompt import build_prompt, estimated_tokens
from workers.orchestrator.language import Languages
from workers.orchestrator.preparation import Preparation
from workers.orchestrator.routing import Routing
from workers.orchestrator.rules import RuleRouter


async def test_a_turn_is_answered_by_the_fine_tuned_model(database_url: str, redis_url: str) -> None:
    """A discovery turn ends answered, by one primary call, its frames numbered from routed to done."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.say("c1", "Hello there")

        row = await p.row(turn)
        frames = await p.log(turn)

        assert (row["state"], row["source"], row["agent"]) == ("answered", "primary", Agent.DISCOVERY)
        assert p.calls(turn) == (1, 0)
        assert [frame.seq for frame in frames] == list(range(1, len(frames) + 1))
        assert frames[0].phase is Phase.ROUTED
        assert [frame.phase for frame in frames[-1:]] == [Phase.DONE]
        assert content_of(frames) == row["content"]


@pytest.mark.parametrize("fault", ["status", "event", "cut", "close", "hang", "malformed"])
async def test_a_failure_before_anything_is_visible_falls_back_once(
    database_url: str, redis_url: str, fault: FaultKind
) -> None:
    """Whatever way the primary fails unseen, the frontier answers the same turn whole, with one call each."""
    async with pipeline(database_url, redis_url, policy=quick(load_policy())) as p:
        p.tgi.control(fault=fault, after_tokens=0)

        turn = await p.say("c1", "Hello there")

        row = await p.row(turn)
        frames = await p.log(turn)
        assert (row["state"], row["source"]) == ("answered", "fallback")
        assert p.calls(turn) == (1, 1)
        assert content_of(frames) == row["content"]
        assert [frame.phase for frame in frames if frame.terminal] == [Phase.DONE]


async def test_a_cut_at_every_token_keeps_what_was_visible_and_never_repeats_it(
    database_url: str, redis_url: str
) -> None:
    """A cut unseen gives one whole frontier answer; later, what was shown, truncated; after the question, nothing."""
    async with pipeline(database_url, redis_url) as p:
        whole = str((await p.row(await p.say("whole", "Hello there")))["content"])
        tokens = p.tgi.requests()[0]["tokens"]
        kinds: set[str] = set()
        for k in range(tokens + 1):
            conversation = f"cut-{k}"
            p.tgi.control(fault="cut", after_tokens=k, times=1)
            turn = await p.say(conversation, "Hello there")

            row = await p.row(turn)
            frames = await p.log(turn)
            content, closing = str(row["content"]), str(row["closing"] or "")
            kinds.add(str(row["state"]))
            assert [frame.seq for frame in frames] == list(range(1, len(frames) + 1))
            assert [frame for frame in frames if frame.terminal] == frames[-1:]
            assert content_of(frames) == content + closing
            if row["state"] == "truncated":
                assert whole.startswith(content)
                assert content
                assert p.calls(turn) == (1, 0)
                assert frames[-1].phase is Phase.TRUNCATED
                assert closing.endswith("?</p>")
            elif row["source"] == "primary":
                kinds.add("whole")
                assert content == whole
                assert p.calls(turn) == (1, 0)
            else:
                assert (row["state"], row["source"]) == ("answered", "fallback")
                assert p.calls(turn) == (1, 1)
        assert kinds == {"answered", "truncated", "whole"}


@pytest.mark.parametrize(
    ("fault", "after", "said"),
    [("cut", 40, ["answer_broke_off"]), ("status", 0, ["falling_back", "no_model_answered"])],
)
async def test_the_log_says_of_every_failed_call_why(
    database_url: str, redis_url: str, fault: FaultKind, after: int, said: list[str]
) -> None:
    """Ledger and `explain` know a failure by its code; the sentence that says where to look is in the log."""
    async with pipeline(database_url, redis_url) as p:
        p.tgi.control(fault=fault, after_tokens=after)
        p.openai.control(fault=fault, after_tokens=after)
        with capture_logs() as lines:
            await p.say("c1", "Hello there")
        told = [line for line in lines if "why" in line]
        assert [line["event"] for line in told] == said
        assert all("the model server" in line["why"] for line in told)


async def test_after_a_truncated_turn_the_next_one_goes_to_the_frontier_once(database_url: str, redis_url: str) -> None:
    """The turn after a cut answer skips the fine-tuned model, and only that one turn."""
    async with pipeline(database_url, redis_url) as p:
        p.tgi.control(fault="close", after_tokens=40, times=1)
        cut = await p.say("c1", "Hello there")
        second = await p.say("c1", "We count stock by hand")
        third = await p.say("c1", "About forty people")

        assert (await p.row(cut))["state"] == "truncated"
        assert p.calls(cut) == (1, 0)
        assert p.calls(second) == (0, 1)
        assert p.calls(third) == (1, 0)


async def test_without_a_fine_tuned_model_the_frontier_answers_at_once(database_url: str, redis_url: str) -> None:
    """An installation that has only a frontier model sends discovery turns there, with one call and no failure."""
    async with pipeline(database_url, redis_url) as p:
        preparation = Preparation(
            inbox=p.inbox,
            routing=Routing(p.policy.routing, rules=RuleRouter()),
            retrieve=nothing_known,
            languages=Languages(p.policy.routing.languages, clear=p.policy.routing.clear),
            dispatcher=Dispatcher(p.redis),
            policy=p.policy,
            served={"frontier"},
            settler=p.sweeper.settler,
        )
        turn = await p.record("c1", "Hello there")
        await preparation.run(turn)
        await p.answer(turn)

        row = await p.row(turn)
        assert (row["state"], row["source"]) == ("answered", "fallback")
        assert p.calls(turn) == (0, 1)
        assert await p.query("SELECT ordinal, state FROM attempts") == [{"ordinal": 2, "state": "succeeded"}]


async def test_when_both_models_fail_the_visitor_gets_the_bounded_reply(database_url: str, redis_url: str) -> None:
    """Two failures end the turn bounded, with a dead letter, and no third call."""
    async with pipeline(database_url, redis_url, policy=quick(load_policy())) as p:
        p.tgi.control(fault="status", status=503)
        p.openai.control(fault="status", status=500)

        turn = await p.say("c1", "Hello there")

        row = await p.row(turn)
        frames = await p.log(turn)
        assert (row["state"], row["reason"]) == ("bounded", "backend_failed_twice")
        assert p.calls(turn) == (1, 1)
        assert frames[-1].phase is Phase.FAILED
        assert content_of(frames) == p.policy.bounded_reply
        letters = await p.query("SELECT reason, state FROM dead_letters")
        assert letters == [{"reason": "backend_failed_twice", "state": "unanswered"}]
        errors = await p.query("SELECT ordinal, state, error FROM attempts ORDER BY ordinal")
        assert [(e["ordinal"], e["state"]) for e in errors] == [(1, "failed"), (2, "failed")]


async def test_the_same_hint_twice_calls_the_model_once(database_url: str, redis_url: str) -> None:
    """Twenty deliveries of one hint at once make one model call and one answer."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")

        await asyncio.gather(*(p.answer(turn) for _ in range(20)))

        assert p.calls(turn) == (1, 0)
        assert (await p.row(turn))["state"] == "answered"


async def test_turns_of_a_conversation_are_answered_in_order(database_url: str, redis_url: str) -> None:
    """A second message waits until the first turn has ended, and its end names the second to be woken."""
    async with pipeline(database_url, redis_url) as p:
        first = await p.queue("c1", "Hello there")
        second = await p.queue("c1", "We count stock by hand")
        assert (await p.row(second))["state"] == "received"

        async with p.redis.pubsub(ignore_subscribe_messages=True) as wake:
            await wake.subscribe(CHANNEL_WAKE)
            await p.answer(first)
            async with asyncio.timeout(5):
                while not (message := cast("dict[str, str] | None", await wake.get_message(timeout=0.1))):
                    pass

        assert message["data"] == second
        await p.preparation.run(second)
        await p.answer(second)
        assert (await p.row(second))["state"] == "answered"


async def test_the_model_hears_the_conversation_so_far(database_url: str, redis_url: str) -> None:
    """Past turns reach the prompt oldest first, and the attempt records how many were cut."""
    async with pipeline(database_url, redis_url) as p:
        for line in ("Hello there", "We count stock by hand"):
            await p.say("c1", line)
        turn = await p.queue("c1", "About forty people")
        claim = await p.runtime.executor.claims.claim(turn)

        assert claim is not None
        assert [past.asked for past in claim.past] == ["Hello there", "We count stock by hand"]
        roomy = build_prompt(claim, input_tokens=3600, history_turns=10)
        fixed = sum(estimated_tokens(m.content) for m in (roomy.messages[0], roomy.messages[-1]))
        tight = build_prompt(claim, input_tokens=fixed + 10, history_turns=10)
        assert [m.role for m in roomy.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert roomy.turns_cut == 0
        assert tight.turns_cut == 2
        assert tight.messages == (roomy.messages[0], roomy.messages[-1])


async def test_without_redis_the_answer_is_silent_and_whole(database_url: str, redis_url: str) -> None:
    """A turn whose frames cannot be armed shows nothing, may still fall back, and ends answered in the ledger."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.queue("c1", "Hello there")
        p.tgi.control(fault="close", after_tokens=40, times=1)
        gone = create_redis("redis://127.0.0.1:1/0")
        executor = replace(p.runtime.executor, frames=FrameLog(gone))

        await executor.run(turn, Lane.DISCOVERY)
        await gone.aclose()

        row = await p.row(turn)
        assert (row["state"], row["source"]) == ("answered", "fallback")
        assert p.calls(turn) == (1, 1)
        assert row["visible_at"] is None


async def test_a_redis_that_forgets_everything_in_mid_stream_is_written_anew(database_url: str, redis_url: str) -> None:
    """After a wipe the owner rewrites the log from what it showed: same frames, same text, one terminal frame."""
    async with pipeline(database_url, redis_url, inter_token_ms=15) as p:
        turn = await p.queue("c1", "Hello there")
        answering = asyncio.create_task(p.answer(turn))
        await until(lambda: _streaming(p, turn))
        await p.redis.flushall()
        await answering

        row = await p.row(turn)
        frames = await p.log(turn)
        assert row["state"] == "answered"
        assert [frame.seq for frame in frames] == list(range(1, len(frames) + 1))
        assert content_of(frames) == row["content"]
        assert frames[-1].phase is Phase.DONE


async def _streaming(p: Pipeline, turn: TurnId) -> bool:
    return len(await p.log(turn)) >= 3


async def test_results_wait_in_the_outbox_with_the_answer(database_url: str, redis_url: str) -> None:
    """The row that settles a turn carries its result: event headers, key and text."""
    async with pipeline(database_url, redis_url) as p:
        turn = await p.say("c1", "Hello there")

        [record] = await p.query("SELECT topic, key, value FROM outbox")
        result = TurnSettled.model_validate_json(bytes(record["value"]))  # pyright: ignore[reportArgumentType] # bytea
        assert record["topic"] == TOPIC_RESULTS
        assert record["key"] == b"acme:c1"
        assert (result.turn_id, result.state, result.source) == (turn, "answered", "primary")
        assert "<" not in result.text
        assert result.html == (await p.row(turn))["content"]


async def test_the_history_of_a_turn_is_written_down(database_url: str, redis_url: str) -> None:
    """Every transition leaves one row, each step allowed by the state machine, epochs never falling."""
    async with pipeline(database_url, redis_url) as p:
        p.tgi.control(fault="status", status=503, times=1)
        turn = await p.say("c1", "Hello there")

        events = await p.query(
            "SELECT from_state, to_state, epoch FROM turn_events WHERE turn_id = CAST(:t AS uuid) ORDER BY event_id",
            t=turn,
        )
        path = [str(event["to_state"]) for event in events]
        assert path == ["received", "preparing", "queued", "running", "fallback", "streaming", "answered"]
        for before, after in pairwise(path):
            assert TurnState(after) in TRANSITIONS[TurnState(before)]
        epochs = [int(str(event["epoch"])) for event in events]
        assert epochs == sorted(epochs)
