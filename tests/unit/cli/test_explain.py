"""A turn's story as a screen of text, from plain data: what a person reads at night."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.explain import to_json, told
from cli.sentence import sentence
from cli.story import Story
from schemas.turns import TERMINAL, TurnState

START = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)
TURN = "3f9d3f0e-6b5e-5a60-9a4e-0c8d6f1f2a11"
STEPS = ["received", "preparing", "queued"]
SAID, SHOWN = "we lose turquoise umbrellas", "<p>Where do you <b>lose</b> them?</p>"


def at(ms: float) -> str:
    return (START + timedelta(milliseconds=ms)).isoformat()


def call(ordinal: int, model: str, state: str = "succeeded", error: str | None = None, **more: Any) -> dict[str, Any]:
    begun = {"ordinal": ordinal, "model": model, "state": state, "error": error, "reserved_at": at(100 * ordinal)}
    ended = {"ended_at": at(100 * ordinal + 80), "input_tokens": 200, "output_tokens": 60}
    return begun | ended | more


def path(*states: str, note: str | None = None) -> list[dict[str, Any]]:
    """The steps through these states, 100 ms apart; the note is with the last."""
    found: list[dict[str, Any]] = []
    for index, state in enumerate(states):
        before = states[index - 1] if index else None
        found.append(
            {"at": at(100 * index), "from_state": before, "to_state": state, "epoch": 1, "actor": "agents@a:1"}
        )
    found[-1]["note"] = note
    return found


def rescued(*states: str, reason: str) -> list[dict[str, Any]]:
    """The steps through these states, where the one to `rescue` has its reason."""
    found = path(*states)
    found[states.index("rescue")]["note"] = reason
    return found


def past_the_breaker(*states: str) -> list[dict[str, Any]]:
    """The steps of a turn that was claimed while its lane was open."""
    found = path(*STEPS, "fallback", *states)
    found[STEPS.index("queued") + 1]["note"] = "breaker_open"
    return found


def story(state: str, **more: Any) -> Story:
    ended = TurnState(state) in TERMINAL
    facts: dict[str, Any] = {
        "turn_id": TURN,
        "conversation_id": "c1",
        "seq": 4,
        "channel": "web_chat",
        "state": state,
        "agent": "discovery",
        "created_at": at(0),
        "done_at": at(1500) if ended else None,
        "attempts": [],
        "events": path(*STEPS, state),
        "timings": {"visible": 0.42, "done": 1.5 if ended else None},
        "deadline_at": at(75_000),
        "as_of": at(2_000),
        "text": SAID,
        "answer": {"html": SHOWN} if ended else None,
        "epoch": 2,
        "plan": {"primary": "discovery-slm", "fallback": "frontier", "why": "needs are not known yet"},
        "hints": {"sent": 1, "last_at": at(200)},
        "frames": {"content": 3, "characters": 37, "terminal": "done" if ended else None},
        "kafka": {"topic": "fairlead.turns", "partition": 3, "offset": 41},
        "result": {"topic": "fairlead.results", "state": "published"} if ended else None,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    return Story.model_validate(facts | more)


FAILED = call(1, "discovery-slm", "failed", "incomplete")
UNSEEN: dict[str, Any] = {"visible": None, "done": 3.1}

OTHER = "70dc7946-7fc7-5dbd-8bb1-037f3bdb428e"
REPLAY: dict[str, Any] = {"job_id": "j1", "mode": "deliver", "state": "answered", "turn_id": OTHER}
REPLAY_OF: dict[str, Any] = {"dead_letter_id": TURN, "turn_id": OTHER, "mode": "deliver", "job_id": "j1"}

ENDINGS = {
    "answered": (
        story("answered", source="primary", attempts=[call(1, "discovery-slm")]),
        "Answered by the fine-tuned model; the visitor waited 420 ms for the first word.",
    ),
    "fallback": (
        story("answered", source="fallback", attempts=[FAILED, call(2, "frontier")], timings={"visible": 1.2}),
        "Answered by the frontier after the fine-tuned model closed the connection before its first word; "
        "the visitor waited 1.2 s for the first word.",
    ),
    "other models": (
        story("answered", attempts=[call(1, "mine", "failed", "overloaded"), call(2, "frontier-lite")]),
        "Answered by the smaller frontier model after the model 'mine' had no room; "
        "the visitor waited 420 ms for the first word.",
    ),
    "unserved": (
        story(
            "answered",
            attempts=[call(2, "frontier")],
            plan={"primary": "discovery-slm", "fallback": "frontier", "direct": True},
        ),
        "Answered by the frontier at once, as nothing serves the fine-tuned model; "
        "the visitor waited 420 ms for the first word.",
    ),
    "after a truncated one": (
        story("answered", attempts=[call(2, "frontier")]),
        "Answered by the frontier at once, as the answer before this one broke off; "
        "the visitor waited 420 ms for the first word.",
    ),
    "past an open breaker": (
        story("answered", attempts=[call(2, "frontier")], events=past_the_breaker("streaming", "answered")),
        "Answered by the frontier at once, as the fine-tuned model was skipped by its open breaker; "
        "the visitor waited 420 ms for the first word.",
    ),
    "bounded past an open breaker": (
        story(
            "bounded",
            reason="unavailable",
            attempts=[call(2, "frontier", "failed", "unavailable")],
            timings=UNSEEN,
            events=past_the_breaker("bounded"),
        ),
        "Not answered: the fine-tuned model was skipped by its open breaker and the frontier could not be reached; "
        "the visitor got the bounded reply after 3.1 s.",
    ),
    "offline": (
        story("answered", source="offline", attempts=[call(1, "frontier")]),
        "Answered by the offline responder, as no model server is configured; "
        "the visitor waited 420 ms for the first word.",
    ),
    "silent": (
        story("answered", attempts=[call(1, "frontier")], timings=UNSEEN),
        "Answered by the frontier; the visitor saw nothing of it until its end, 3.1 s after it was recorded.",
    ),
    "truncated": (
        story("truncated", reason="timeout", attempts=[call(1, "discovery-slm", "failed", "timeout")]),
        "Broke off after 37 visible characters because the fine-tuned model ran out of time; "
        "the visitor waited 420 ms for the first word.",
    ),
    "truncated fallback": (
        story("truncated", reason="backend_failed", attempts=[FAILED, call(2, "frontier", "failed", "backend_failed")]),
        "Broke off after 37 visible characters because the frontier broke (before that, the fine-tuned model closed "
        "the connection before its first word); the visitor waited 420 ms for the first word.",
    ),
    "truncated by a lost worker": (
        story("truncated", reason="worker_lost", attempts=[call(1, "discovery-slm", "abandoned", "worker_lost")]),
        "Broke off after 37 visible characters because its worker was lost while it was writing; "
        "the visitor waited 420 ms for the first word.",
    ),
    "bounded": (
        story(
            "bounded",
            reason="backend_failed_twice",
            attempts=[FAILED, call(2, "frontier", "failed", "unavailable")],
            timings=UNSEEN,
        ),
        "Not answered: the fine-tuned model closed the connection before its first word and the frontier could not be "
        "reached; the visitor got the bounded reply after 3.1 s.",
    ),
    "bounded at the deadline": (
        story("bounded", reason="turn_deadline", timings=UNSEEN),
        "Not answered: its deadline passed while it was queued; the visitor got the bounded reply after 3.1 s.",
    ),
    "bounded without workers": (
        story(
            "bounded",
            reason="queue_deadline",
            timings=UNSEEN,
            events=rescued(*STEPS, "rescue", "bounded", reason="queue_deadline"),
        ),
        "Not answered: no worker took it from its lane in time and no worker took the rescue before the deadline; "
        "the visitor got the bounded reply after 3.1 s.",
    ),
    "bounded after two losses": (
        story(
            "bounded",
            reason="worker_lost",
            attempts=[FAILED, call(2, "frontier", "abandoned", "worker_lost")],
            timings=UNSEEN,
            events=rescued(*STEPS, "running", "fallback", "rescue", "bounded", reason="worker_lost"),
        ),
        "Not answered: the fine-tuned model closed the connection before its first word and its worker was lost "
        "before anything was visible and its one fallback was used up; the visitor got the bounded reply after 3.1 s.",
    ),
    "bounded and unknown": (
        story("bounded", reason="seal_unknown", timings=UNSEEN),
        "Not answered: its worker was lost and Redis had forgotten what it may have shown; "
        "the visitor got the bounded reply after 3.1 s.",
    ),
    "rescued from its lane": (
        story(
            "answered",
            attempts=[call(2, "frontier", rescue=True)],
            events=rescued(*STEPS, "rescue", "fallback", "streaming", "answered", reason="queue_deadline"),
        ),
        "Answered by the frontier after no worker took it from its lane in time; "
        "the visitor waited 420 ms for the first word.",
    ),
    "rescued from a sealed stream": (
        story(
            "answered",
            attempts=[call(1, "discovery-slm", "abandoned", "worker_lost"), call(2, "frontier", rescue=True)],
            events=path(*STEPS, "running", "streaming", "sealing", "rescue", "fallback", "streaming", "answered"),
            dead_letters=[
                {
                    "dead_letter_id": TURN,
                    "reason": "worker_lost",
                    "stage": "sealing",
                    "state": "answered_by_fallback",
                    "created_at": at(600),
                }
            ],
        ),
        "Answered by the frontier after its worker was lost before anything was visible; "
        "the visitor waited 420 ms for the first word.",
    ),
    "handed off": (
        story("handed_off", reason="backend_failed", attempts=[call(2, "frontier", "failed", "overloaded")]),
        "Not answered: the frontier had no room; it was handed to a person, as the visitor was told after 1.5 s.",
    ),
    "parked by the budget": (
        story("parked", reason="budget", timings=UNSEEN, events=rescued(*STEPS, "rescue", "parked", reason="budget")),
        "Not answered: more turns had to be rescued than the policy pays for; its dead letter was parked for an "
        "operator, and the visitor got the bounded reply after 3.1 s.",
    ),
    "parked as poison": (
        story(
            "parked",
            reason="poison",
            timings=UNSEEN,
            events=rescued(*STEPS, "running", "rescue", "parked", reason="poison"),
        ),
        "Not answered: its second worker was lost as well, as if the turn itself killed them; its dead letter was "
        "parked for an operator, and the visitor got the bounded reply after 3.1 s.",
    ),
    "cancelled": (story("cancelled", reason="asked to"), "Ended cancelled: asked to."),
    "delivered later": (
        story("bounded", reason="dependency_down", timings=UNSEEN, replays=[REPLAY | {"state": "answered"}]),
        "Not answered: no model it could have been answered by could be reached; the visitor got the bounded reply "
        "after 3.1 s; a replay answered it later.",
    ),
    "delivered now": (
        story("bounded", reason="malformed", timings=UNSEEN, replays=[REPLAY | {"state": "running"}]),
        "Not answered: what a model wrote is no answer; the visitor got the bounded reply after 3.1 s; a replay is "
        "under way.",
    ),
    "a shadow of it": (
        story("bounded", reason="load_failure", timings=UNSEEN, replays=[REPLAY | {"mode": "shadow"}]),
        "Not answered: its model could not be loaded; the visitor got the bounded reply after 3.1 s.",
    ),
    "a replay that was delivered": (
        story("answered", attempts=[call(1, "discovery-slm")], replay_of=REPLAY_OF),
        f"Replay (deliver) of turn {OTHER}: answered by the fine-tuned model; "
        "the visitor waited 420 ms for the first word.",
    ),
    "a replay for the record": (
        story("answered", attempts=[call(2, "frontier")], replay_of=REPLAY_OF | {"mode": "compare", "turn_id": None}),
        f"Replay (compare) of dead letter {TURN}, whose turn is no longer kept: answered by the frontier at once, as "
        "the answer before this one broke off; no visitor was shown it.",
    ),
    "a replay in vain": (
        story("bounded", reason="backend_failed", timings=UNSEEN, replay_of=REPLAY_OF | {"mode": "shadow"}),
        f"Replay (shadow) of turn {OTHER}: not answered: the one model that could still be asked failed; "
        "no visitor was shown anything.",
    ),
}

RUNNING = call(1, "discovery-slm", "reserved", ended_at=None, input_tokens=None, output_tokens=None)

STANDING = {
    "accepted": (
        Story.model_validate({"turn_id": TURN, "conversation_id": "c1", "state": "received"}),
        "Accepted a moment ago, and no orchestrator has recorded it yet.",
    ),
    "received": (
        story("received", events=path("received")),
        "Recorded, and waits for 2.0 s for an orchestrator.",
    ),
    "behind": (
        story("received", events=path("received"), behind="the-other-turn"),
        "Waits for 2.0 s for an earlier turn of its conversation to end: the-other-turn.",
    ),
    "queued": (
        story("queued", events=path(*STEPS)),
        "Waits for 1.8 s for a worker of the lane agent.discovery.",
    ),
    "rescue": (
        story("rescue", events=rescued(*STEPS, "rescue", reason="queue_deadline")),
        "No worker took it from its lane in time; it waits for 1.7 s for a worker of the lane agent.frontier_fallback.",
    ),
    "running": (
        story("running", attempts=[RUNNING]),
        "The fine-tuned model has been asked for 1.7 s, and nothing is visible yet.",
    ),
    "fallback": (
        story("fallback", attempts=[FAILED, RUNNING | {"ordinal": 2, "model": "frontier"}]),
        "The fine-tuned model closed the connection before its first word; the frontier has been asked for 1.7 s, "
        "and nothing is visible yet.",
    ),
    "streaming": (
        story("streaming", attempts=[RUNNING]),
        "The fine-tuned model is answering; at the last checkpoint it had written 37 characters.",
    ),
    "lease over": (
        story("running", attempts=[RUNNING], lease={"owner": "agents@a:1", "until": at(-8_000)}),
        "The fine-tuned model has been asked for 1.7 s, and nothing is visible yet. "
        "Its lease ended 10.0 s ago, so upkeep should have acted: see whether it runs.",
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_ending_is_one_sentence(ending: str) -> None:
    """However a turn ended, the first line says who answered or why nobody did, and how long the visitor waited."""
    of, said = ENDINGS[ending]
    assert sentence(of) == said
    assert told(of, reveal=False, styled=False).splitlines()[0] == said


@pytest.mark.parametrize("standing", STANDING)
def test_an_open_turn_says_what_it_waits_for(standing: str) -> None:
    """A turn that is still open says what it waits for and for how long, and what is overdue."""
    of, said = STANDING[standing]
    assert sentence(of) == said
    assert told(of, reveal=False, styled=False).splitlines()[0] == said


@pytest.mark.parametrize("state", TurnState)
def test_every_state_has_its_sentence(state: TurnState) -> None:
    """A turn of which little is known, in any state, is told without a crash."""
    bare = Story.model_validate({"turn_id": TURN, "conversation_id": "c1", "seq": 1, "state": state, "attempts": []})
    assert re.fullmatch(r"[A-Z].*\.", sentence(bare))
    assert told(bare, reveal=True, styled=True)


def test_the_screen_has_every_part() -> None:
    """Steps with offsets and actors, calls with durations and tokens, frames, places and dead letters are there."""
    letter = {
        "dead_letter_id": TURN,
        "reason": "worker_lost",
        "stage": "running",
        "state": "unanswered",
        "times": 2,
        "replays": 1,
        "versions": {"policy": 1, "model": "frontier"},
        "created_at": at(600),
    }
    replays = [
        REPLAY | {"started_at": at(60_000), "ended_at": at(61_500)},
        REPLAY | {"turn_id": None, "state": "skipped", "note": "moved_on"},
    ]
    of, _ = ENDINGS["fallback"]
    attempts = [FAILED | {"input_tokens": None}, call(2, "frontier", turns_cut=3, confidence=0.914)]
    whole = Story.model_validate(
        of.model_dump() | {"attempts": attempts, "dead_letters": [letter], "replays": replays, "replay_of": REPLAY_OF}
    )
    lines = [" ".join(line.split()) for line in told(whole, reveal=False, styled=False).splitlines()]
    for line in (
        "conversation c1, turn 4 of it",
        "agent discovery (needs are not known yet)",
        "deadline 2026-01-02 03:01:15.000 UTC, 75.0 s after it was recorded",
        "event fairlead.turns, partition 3, offset 41",
        "result published to fairlead.results",
        "trace 0af7651916cd43dd8448eb211c80319c",
        "0 — → received epoch 1 agents@a:1",
        "300 queued → answered epoch 1 agents@a:1",
        "1 discovery-slm primary 100–180 ms (80 ms) failed incomplete tokens not told",
        "2 frontier fallback 200–280 ms (80 ms) succeeded 200 tokens in, 60 out confidence 0.91 3 past turns cut",
        "3 with content, 37 characters, the first visible after 1200 ms; ended done",
        f"600 worker_lost while running unanswered 2 times 1 replays in vain policy 1, model frontier {TURN}",
        f"2026-01-02 03:01:00.000 UTC deliver answered 1.5 s turn {OTHER} job j1",
        "not begun deliver skipped moved_on job j1",
        f"replay of dead letter {TURN}, turn {OTHER} (deliver, job j1)",
    ):
        assert line in lines


def test_a_result_that_waits_says_where_to_look() -> None:
    """A result that Kafka does not have is told as such, with what to look at."""
    waiting = story("answered", result={"topic": "fairlead.results", "state": "waiting"})
    assert "waits in the outbox for fairlead.results: see Kafka and upkeep" in told(waiting, reveal=False, styled=False)


def test_what_people_wrote_shows_only_on_request() -> None:
    """Message and answer are left out of text and JSON, and with `reveal` are shown as plain text."""
    of, _ = ENDINGS["answered"]
    for shown in (told(of, reveal=False, styled=False), to_json(of, reveal=False)):
        assert "umbrellas" not in shown
        assert "lose" not in shown
    revealed = told(of, reveal=True, styled=False)
    assert SAID in revealed
    assert "Where do you lose them?" in revealed
    assert json.loads(to_json(of, reveal=True))["answer"] == {"html": SHOWN}


def test_nothing_in_a_story_commands_the_terminal() -> None:
    """Escape sequences in any field reach the terminal as replacement characters, in JSON as escapes."""
    evil = "\x1b[2J\x9b31m\r"
    steps = path(*STEPS, "answered", note=evil)
    of = story("answered", channel=evil, text=evil, answer={"html": f"<p>{evil}</p>"}, events=steps, reason=evil)
    for shown in (told(of, reveal=True, styled=False), to_json(of, reveal=True)):
        assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown) is None
