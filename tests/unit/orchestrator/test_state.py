"""What the classifier knows beside the words."""

import pytest

from infra.postgres.inbox import PastTurn, Prepared
from schemas.agents import Agent
from tests.support.turns import turn
from training.router.utterances import Utterance, situations
from workers.orchestrator.rules import RuleRouter
from workers.orchestrator.state import STATE, state_of


def known(of: Prepared) -> set[str]:
    """Return the names of the features that are set."""
    return {name for name, value in zip(STATE, state_of(of, RuleRouter().judge(of)), strict=True) if value}


def after(text: str, html: str, by: Agent) -> Prepared:
    """Return a turn after one answer."""
    return Utterance(text, by, "en", "earlier", by, html.endswith("?</p>")).turn()


def test_a_first_message_has_no_past() -> None:
    """What opens a conversation follows nothing and replies to nothing."""
    assert known(turn("Around forty")) == {"short"}


def test_a_reply_follows_an_open_question() -> None:
    """Few words without a question mark after a question of ours may answer it; a question of the visitor does not."""
    assert "replies" in known(after("around forty, mostly at night", "<p>?</p>", Agent.DISCOVERY))
    assert "replies" not in known(after("around forty?", "<p>?</p>", Agent.DISCOVERY))
    assert "replies" not in known(after("around forty", "<p>.</p>", Agent.DISCOVERY))


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (Agent.SUPPORT, "follows_support"),
        (Agent.TECHNICAL_CONSULTANT, "follows_technical"),
        (Agent.CONTENT_GENERATOR, "follows_content"),
    ],
)
def test_a_few_words_go_on_with_the_last_answer(agent: Agent, name: str) -> None:
    """A brief message is known to follow the agent who answered last; a long one stands for itself."""
    assert name in known(after("and on the phone?", "<p>.</p>", agent))
    assert name not in known(after("and " * 9, "<p>.</p>", agent))


def test_the_last_answer_that_was_shown_counts() -> None:
    """A turn without an answer is passed over, and markup is not read as text."""
    shown = PastTurn("one", '<p title="?">Who decides <b>that?</b></p>', Agent.DISCOVERY, seq=1)
    base = turn("me")
    silent = PastTurn("two", "", Agent.SUPPORT, seq=2)
    of = Prepared(
        turn_id=base.turn_id, tenant="acme", conversation_id="c", seq=3, epoch=1, text="me", channel="api",
        past=(shown, silent), brought=(), traceparent=None,
    )  # fmt: skip
    assert known(of) == {"has_past", "short", "replies"}


def test_what_a_channel_brought_along_is_a_past() -> None:
    """An assistant's question in a history from outside can be replied to; nobody knows which agent asked it."""
    found = known(turn("me", brought=(("user", "hello"), ("assistant", "Who decides?"))))
    assert {"has_past", "replies"} <= found
    assert not {name for name in found if name.startswith("follows")}


def test_what_the_rules_find_is_known() -> None:
    """Problems, material, technical words, signals and risks are features, each by its name."""
    assert "problem" in known(turn("The export is broken"))
    assert "material" in known(turn("Please draft a one-pager"))
    assert "technical" in known(turn("Is there a webhook?"))
    assert {"budget", "asks"} <= known(turn("What is the price?"))
    assert {"repeats", "has_past"} <= known(turn("How many users are in it", "How many users are in it"))


def test_situations_say_what_came_before() -> None:
    """A mark in front of an utterance is no part of its text, and names who answered before it."""
    rows = situations()
    assert not [row.text for row in rows if row.text.startswith(("asked:", "support:", "technical:", "content:"))]
    brief = next(row for row in rows if row.text == "and on the phone?")
    assert (brief.agent, brief.by, brief.open) == (Agent.SUPPORT, Agent.SUPPORT, False)
