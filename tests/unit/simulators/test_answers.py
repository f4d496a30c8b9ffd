"""What the simulated model says."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from simulators.answers import Answer, compose, fitting, tokenise
from simulators.control import Fault
from simulators.dialogues import Intent, Reply, dialogues, recognise, reply_to
from simulators.journal import Call, Journal
from simulators.prompts import Message, from_messages, from_text
from simulators.shapes import DEFAULT_SCHEMA, Schema, fill
from workers.assets.diagram import read_diagram

INTENTS = [*dialogues().intents, dialogues().fallback]


@pytest.mark.parametrize("intent", INTENTS, ids=lambda intent: intent.name)
def test_a_discovery_reply_ends_in_exactly_one_question(intent: Intent) -> None:
    """Each discovery reply is one paragraph whose last sentence is its only question."""
    for html in intent.discovery:
        assert html.count("?") == 1
        assert html.endswith("?</p>")
        assert html.count("<p>") == 1


@pytest.mark.parametrize("intent", INTENTS, ids=lambda intent: intent.name)
def test_each_reply_is_closed_html(intent: Intent) -> None:
    """Each opened tag is closed, and only a few kinds are used."""
    for html in (*intent.discovery, *intent.answer):
        opened = re.findall(r"<(\w+)>", html)
        assert sorted(opened) == sorted(re.findall(r"</(\w+)>", html))
        assert set(opened) <= {"p", "strong", "ul", "li"}
        assert intent.dimension in json.dumps(DEFAULT_SCHEMA)


@pytest.mark.parametrize(
    ("question", "intent"),
    [
        ("Hello there", "greeting"),
        ("Picking is slow and we pay overtime", "pain_points"),
        ("When could we go live?", "timeline"),
        ("What does it cost per month?", "budget"),
        ("How do you compare to our spreadsheets?", "competitor"),
        ("I get an error and the login fails", "support_problem"),
        ("Is there an API or a webhook for our ERP?", "integration"),
        ("Our CFO must approve it", "decision"),
        ("We have three shifts and forty pickers", "team"),
        ("Thanks, goodbye", "thanks"),
        ("Tell me a poem about the moon", "fallback"),
    ],
)
def test_a_question_has_its_intent(question: str, intent: str) -> None:
    """The words of a question choose what is answered."""
    assert recognise(question).name == intent


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    """Tokens have one to six characters, and joined they are the text again."""
    tokens = tokenise(text)

    assert "".join(tokens) == text
    assert all(1 <= len(token) <= 6 for token in tokens)


@given(st.text(min_size=1), st.integers(min_value=0, max_value=100))
def test_log_probabilities_are_plausible(text: str, index: int) -> None:
    """A log probability is below zero, not far, and the same each time."""
    answer = Answer(tokens=(*" " * index, text), finish="stop", prompt_tokens=1)

    assert -0.5 <= answer.logprob(index) < 0
    assert answer.logprob(index) == answer.ranked(index, 2)[0][1] > answer.ranked(index, 2)[1][1]


@given(st.text(max_size=60), st.sampled_from(["discovery", "answer", "base"]))
def test_json_answers_follow_the_default_schema(question: str, voice: str) -> None:
    """Whatever is asked, a JSON answer has the dimension first and then the HTML."""
    prompt = from_text(question)

    answer = compose(prompt, voice="base" if voice == "base" else "discovery", schema=DEFAULT_SCHEMA, length=None)

    assert list(json.loads(answer.text)) == ["dimension", "html_response"]


def test_some_answers_escape_what_is_not_ascii() -> None:
    """Across questions, characters outside ASCII come both as they are and as escapes split over tokens."""
    texts = [
        compose(from_text(f"slow picking {n}"), voice="discovery", schema=DEFAULT_SCHEMA, length=None).text
        for n in range(60)
    ]

    assert any(not text.isascii() for text in texts)
    assert any("\\u" in text for text in texts)


@given(st.integers(min_value=40, max_value=2000))
def test_a_forced_length_is_exact(length: int) -> None:
    """A forced length is met to the token, and the JSON still closes."""
    answer = compose(from_text("hi"), voice="discovery", schema=DEFAULT_SCHEMA, length=length)

    assert len(answer.tokens) == length
    json.loads(answer.text)


def test_limits_and_malformations_keep_the_beginning() -> None:
    """Cutting and spoiling an answer leave its first tokens as they were."""
    answer = compose(from_text("hi"), voice="discovery", schema=DEFAULT_SCHEMA, length=None)

    assert answer.limited(7).tokens == answer.tokens[:7]
    assert (answer.limited(7).finish, answer.limited(None).finish) == ("length", "stop")
    assert answer.malformed(7).tokens[:7] == answer.tokens[:7]
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.malformed(10_000).text)


def test_a_schema_is_filled_in_its_order() -> None:
    """References, options, enums, arrays, limits and nested objects are filled, in the order of the properties."""
    schema: Schema = {
        "$defs": {"Source": {"type": "object", "properties": {"title": {"type": "string", "maxLength": 5}}}},
        "type": "object",
        "properties": {
            "agent": {"enum": ["discovery", "support"]},
            "sources": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/Source"}},
            "confidence": {"type": "number", "maximum": 0.5},
            "count": {"type": "integer", "minimum": 3},
            "note": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "kind": {"const": "route"},
            "sure": {"type": "boolean"},
            "nothing": {"type": "null"},
            "html": {"type": ["string", "null"]},
        },
    }
    reply = reply_to("the login fails", "answer")

    value = fill(schema, reply)

    titled: JsonValue = {"title": reply.plain[:5]}
    expected: dict[str, JsonValue] = {
        "agent": "support",
        "sources": [titled, titled],
        "confidence": 0.5,
        "count": 3,
        "note": reply.plain,
        "kind": "route",
        "sure": True,
        "nothing": None,
        "html": reply.html,
    }
    assert value == expected
    assert isinstance(value, dict)
    assert list(value) == list(expected)


def test_a_schema_that_contains_itself_comes_to_an_end() -> None:
    """A recursive schema is filled to a bounded depth."""
    schema: Schema = {"type": "object", "properties": {"child": {"$ref": "#"}}}

    json.dumps(fill(schema, reply_to("hi", "answer")))


def test_a_regular_expression_is_matched_or_declined() -> None:
    """A text that matches is found among the known ones; otherwise, or if it does not compile, there is none."""
    prompt = from_text("what does it cost")

    found = fitting("(yes|no)", prompt, voice="answer")
    assert found is not None
    assert found.text == "yes"
    assert fitting(r"[A-Z]{40}\d", prompt, voice="answer") is None
    assert fitting("(", prompt, voice="answer") is None


def test_the_last_user_message_is_the_question() -> None:
    """Chat messages, ChatML and labelled lines give the same question and agent."""
    said = [("system", "You are the technical consultant."), ("user", "hi"), ("assistant", "yes"), ("user", "and SSO?")]
    chat = from_messages([Message(role=role, content=text) for role, text in said])
    chatml = from_text("".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in said))
    lines = from_text("\n".join(f"{role.title()}: {text}" for role, text in said) + "\nAssistant:")

    assert chat.question == chatml.question == lines.question.strip() == "and SSO?"
    assert chat.agent == chatml.agent == lines.agent == "technical_consultant"


def test_the_journal_forgets_the_oldest() -> None:
    """The journal is bounded: the oldest calls leave the list and the counts."""
    journal = Journal(most=2)
    for turn in ("a", "a", "b"):
        journal.add(Call(turn=turn, attempt=None, path="/"))

    assert [call["turn"] for call in journal.records()] == ["a", "b"]
    assert journal.counts() == {"a": 1, "b": 1}
    journal.add(Call(turn=None, attempt=None, path="/"))
    assert journal.counts() == {"b": 1}


@pytest.mark.parametrize("intent", INTENTS, ids=lambda intent: intent.name)
def test_a_diagram_that_is_asked_for_is_one(intent: Intent) -> None:
    """Where the schema has a graph the answer describes one that can be drawn, null or not."""
    text: Schema = {"type": "string"}
    node: Schema = {"type": "object", "properties": {"id": text, "label": text}}
    edge: Schema = {"type": "object", "properties": {"from": text, "to": text, "label": text}}
    graph: Schema = {
        "type": ["object", "null"],
        "properties": {
            "title": text,
            "nodes": {"type": "array", "items": node},
            "edges": {"type": "array", "items": edge},
        },
    }
    reply = Reply(
        question="", intent=intent.name, agent=intent.agent, dimension=intent.dimension, html=intent.answer[0]
    )
    filled = fill({"type": "object", "properties": {"diagram": graph}}, reply)
    assert isinstance(filled, dict)
    assert len(read_diagram(filled["diagram"]).nodes) > 0


def test_an_obedient_model_writes_what_it_is_told() -> None:
    """Words become the text of the agreed shape, an output that begins with a brace is the output."""
    answer = compose(from_text("Hello"), voice="discovery", schema=DEFAULT_SCHEMA, length=None)
    assert json.loads(answer.saying("<p>obeyed</p>").text)["html_response"] == "<p>obeyed</p>"
    assert Fault(says="{broken").bend(answer, from_text("Hello"), DEFAULT_SCHEMA).text == "{broken"
    quoted = from_text("<|im_start|>user\n⟦message⟧\nHow?\n⟦end⟧\n⟦reminder⟧\nBe brief.\n⟦end⟧<|im_end|>\n")
    assert quoted.question == "How?"
