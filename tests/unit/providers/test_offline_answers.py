"""What is said without a model: made of the turn, cited, in the visitor's language, labelled."""

import pytest

from benchmarks.claims import claim_of, found
from infra.postgres.inbox import PastTurn
from schemas.agents import ANSWERING, Agent
from schemas.answer_policy import AnswerPolicy
from schemas.briefs import Brief, Fact
from schemas.knowledge import Passage, Retrieved
from workers.agents.material import material_of
from workers.agents.offered import offered
from workers.agents.phrases import all_phrases
from workers.agents.shape import answer_schema
from workers.answers.last_tier import offline_reply
from workers.providers.offline import fields_of
from workers.providers.offline_answers import LABEL, quote, steps

RESET = Passage(
    passage_id="p1",
    source="https://docs.example/reset",
    title="Reset",
    text="It has a blue button. To reset the scanner, hold the button for ten seconds. Then wait for the light.",
)
SETUP = Passage(
    passage_id="p2",
    source="setup.md",
    title="Setup",
    heading="Guide > First day",
    text="Before you begin:\n1. Charge the scanner\n2. Pair it with the dock\n3. Scan the <first> label",
)


def fields(agent: Agent, text: str, brief: Brief, past: tuple[PastTurn, ...] = ()) -> dict[str, object]:
    """Return what is said to a turn."""
    claim = claim_of(agent, text, brief=brief, past=past)
    return {**fields_of(material_of(claim, offered(claim)), answer_schema(claim))}


def test_support_quotes_the_sentences_that_answer_and_names_their_passage() -> None:
    """The quotation is the passage's own words around what was asked, with its number."""
    answer = fields(Agent.SUPPORT, "How do I reset the scanner?", found(RESET, SETUP))
    assert answer["dimension"] == "support"
    assert answer["citations"] == [1, 2]
    html = str(answer["html_response"])
    assert html.startswith(
        f"<p>{LABEL}Our documentation says:</p><ul><li>“To reset the scanner, hold the button for ten"
    )
    assert "[1]</li>" in html


@pytest.mark.parametrize("agent", [Agent.SUPPORT, Agent.TECHNICAL_CONSULTANT, Agent.ADAPTIVE_RESPONSE])
@pytest.mark.parametrize("state", ["off", "nothing", "late", "failed"])
def test_without_passages_nothing_is_pretended(agent: Agent, state: str) -> None:
    """The answer says that it does not know, and offers a person, whatever kept the passages away."""
    brief = Brief(language="fr", retrieved=Retrieved.model_validate({"state": state}))
    reply = offline_reply(claim_of(agent, "Comment ?", brief=brief), AnswerPolicy())
    assert reply is not None
    assert reply[0].startswith(f"<p>{LABEL}Vous écrivez : « Comment ? »</p>")
    assert reply[0].endswith("Voulez-vous parler à un collègue ?</p>")


@pytest.mark.parametrize("language", sorted(all_phrases()))
@pytest.mark.parametrize("agent", ANSWERING)
def test_every_agent_says_something_safe_in_every_language(agent: Agent, language: str) -> None:
    """Each agent's answer is labelled, keeps to its own rules and is in the visitor's language."""
    claim = claim_of(agent, "What about the scanner <b>?", brief=found(RESET, SETUP, language=language))
    reply = offline_reply(claim, AnswerPolicy())
    assert reply is not None
    html, read = reply
    assert LABEL.strip() in html
    assert "<b>" not in html
    if agent is not Agent.DISCOVERY:
        assert read.cited
        assert all_phrases()[language].sources in html
        assert '<a href="https://docs.example/reset"' in html


def test_a_technical_question_is_answered_thing_by_thing() -> None:
    """Each part of the question gets the passage that has most of its words."""
    answer = fields(
        Agent.TECHNICAL_CONSULTANT, "How do I reset the Scanner? How does setup with the Dock go?", found(SETUP, RESET)
    )
    html = str(answer["html_response"])
    assert html.index("On How do I reset") < html.index("ten seconds") < html.index("On How does setup")
    assert answer["citations"] == [2, 1]


def test_what_was_told_is_not_told_again() -> None:
    """A quotation that an earlier answer holds already is left out; with nothing else there is nothing new."""
    told = PastTurn("How?", f"<p>{RESET.text}</p>", Agent.SUPPORT, 1, "support", ())
    answer = fields(Agent.ADAPTIVE_RESPONSE, "How do I reset the scanner?", found(RESET), (told,))
    assert answer["dimension"] == "nothing_new"
    other = fields(Agent.ADAPTIVE_RESPONSE, "How do I reset the scanner?", found(RESET, SETUP), (told,))
    assert (other["dimension"], other["citations"]) == ("adaptive", [2])


def test_an_outline_has_steps_and_a_diagram_where_one_is_wanted() -> None:
    """Steps of a passage become a list, and boxes one after the other if a flow is asked for."""
    drawn = fields(Agent.CONTENT_GENERATOR, "Draw the process of setting up", found(RESET, SETUP))
    assert drawn["diagram"] == {
        "title": "Draw the process of setting up",
        "nodes": [
            {"id": "s1", "label": "Charge the scanner"},
            {"id": "s2", "label": "Pair it with the dock"},
            {"id": "s3", "label": "Scan the <first> label"},
        ],
        "edges": [{"from": "s1", "to": "s2", "label": ""}, {"from": "s2", "to": "s3", "label": ""}],
    }
    assert "<ol><li>Charge the scanner</li>" in str(drawn["html_response"])
    assert "&lt;first&gt;" in str(drawn["html_response"])
    plain = fields(Agent.CONTENT_GENERATOR, "Write a one-pager", found(RESET))
    assert plain["diagram"] is None
    assert steps([RESET]) == (0, [])


def test_discovery_takes_up_what_was_said_and_asks_one_open_question() -> None:
    """The answer holds the visitor's words and exactly one question, about nothing that is known or was asked."""
    past = (PastTurn("Hi", "<p>?</p>", Agent.DISCOVERY, 1, "pain_points"),)
    brief = Brief(language="de", facts=(Fact(dimension="timeline", value="Mai", seq=1, confidence=0.9),))
    answer = fields(Agent.DISCOVERY, "Wir verlieren ständig Ware, warum?", brief, past)
    html = str(answer["html_response"])
    assert answer["dimension"] not in {"pain_points", "timeline"}
    assert "Wir verlieren ständig Ware, warum" in html
    assert html.count("?") == 1
    assert html.endswith("?</p>")
    assert fields(Agent.DISCOVERY, "What does it cost?", found())["dimension"] == "budget"


def test_a_quotation_is_short_and_whole_sentences() -> None:
    """Of a long passage only the sentences that fit the question are quoted, cut at their most."""
    assert quote(RESET, "how to reset it") == (
        "To reset the scanner, hold the button for ten seconds. Then wait for the light."
    )
    assert len(quote(RESET.model_copy(update={"text": "scanner " * 200}), "scanner")) <= 320
    assert quote(RESET.model_copy(update={"text": " \n"}), "x") == ""


@pytest.mark.parametrize("agent", [Agent.SUPPORT, Agent.TECHNICAL_CONSULTANT, Agent.CONTENT_GENERATOR])
def test_a_visitor_reads_their_own_language_where_a_passage_has_it(agent: Agent) -> None:
    """Passages in other languages are left out, unless there are no others."""
    german = RESET.model_copy(update={"passage_id": "p3", "language": "de", "text": "Reset: Knopf."})
    english = RESET.model_copy(update={"language": "en"})
    both = fields(agent, "Scanner reset?", found(english, german, language="de"))
    assert both["citations"] == [2]
    alone = fields(agent, "Scanner reset?", found(english, language="de"))
    assert alone["citations"] == [1]
