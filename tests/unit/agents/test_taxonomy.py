"""What discovery may ask about, and what it learns from what is said."""

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.postgres.inbox import PastTurn
from schemas.agents import Agent
from schemas.briefs import Fact, SignalKind
from simulators.dialogues import dialogues
from simulators.misbehaviour import KNOWN
from workers.agents.discovery.checks import bleeds, language_of, says_nothing
from workers.agents.discovery.learning import BOTH, EVADED, REPLIED, TOLD, learn
from workers.agents.discovery.taxonomy import LANGUAGES, NEXT_STEPS, taxonomy

NAMES = list(taxonomy().dimensions)


def _asked(dimension: str) -> PastTurn:
    return PastTurn("Hello", "<p>…?</p>", Agent.DISCOVERY, 1, dimension)


def _learnt(text: str, past: tuple[PastTurn, ...] = (), known: tuple[Fact, ...] = ()) -> dict[str, Fact]:
    return {fact.dimension: fact for fact in learn(text, past, known, "en", seq=2)}


def test_the_questions_are_short_and_say_something() -> None:
    """Each dimension has a question in every language: at most 16 words, one mark, nothing generic, told apart."""
    for name in (*NAMES, NEXT_STEPS):
        questions = [taxonomy().question(name, language) for language in LANGUAGES]
        assert len(set(questions)) == len(LANGUAGES)
        for language, question in zip(LANGUAGES, questions, strict=True):
            assert len(question.split()) <= 16
            assert not says_nothing(question)
            assert not bleeds(question)
            assert language_of(question) in (language, None)


def test_the_simulated_model_asks_about_the_taxonomy() -> None:
    """Every dimension the simulators name is one of the taxonomy's."""
    intents = (*dialogues().intents, dialogues().fallback)
    assert {intent.dimension for intent in intents} <= set(NAMES)
    assert set(KNOWN) == set(NAMES)


def test_buying_signals_come_first_then_words_then_priority() -> None:
    """A signal in the message or the brief leads, then a dimension whose words are said, then the file's order."""
    assert taxonomy().open() == tuple(NAMES)
    assert taxonomy().open(text="What does it cost, and who else uses it?")[:2] == ("budget", "success_criteria")
    assert taxonomy().open(signals=(SignalKind.COMPETITOR,))[0] == "current_solution"
    assert taxonomy().open(text="Our procurement is slow")[:2] == ("pain_points", "decision_process")


@given(st.sets(st.sampled_from(NAMES)), st.text(max_size=40))
@settings(deadline=None, max_examples=60)
def test_nothing_closed_is_open(closed: set[str], text: str) -> None:
    """What is known or was asked is never open; when nothing else is left the next steps are."""
    found = taxonomy().open(closed=closed, text=text)
    assert set(found) == (set(NAMES) - closed or {NEXT_STEPS})


def test_a_message_tells_facts_in_its_own_words() -> None:
    """Facts are found in each language, as the sentence that tells them, with a modest confidence."""
    found = _learnt("We are forty people on two shifts. We use spreadsheets. Our budget is 50k!")
    assert {name: fact.value for name, fact in found.items()} == {
        "team": "We are forty people on two shifts.",
        "current_solution": "We use spreadsheets.",
        "budget": "Our budget is 50k!",
    }
    assert {fact.confidence for fact in found.values()} == {TOLD}
    assert "timeline" in _learnt("Wir brauchen es bis Ende März.")
    assert "decision_process" in _learnt("Notre direction doit signer.")
    assert "budget" in _learnt("Nuestro presupuesto es de 20.000 euros.")
    assert "current_solution" in _learnt("Usiamo fogli di calcolo.")


def test_a_question_tells_nothing() -> None:
    """Who asks for the price has not told a budget."""
    assert _learnt("Does it cost more than 500 €? Do you work with SAP?") == {}


def test_the_reply_to_a_question_is_a_fact_about_it() -> None:
    """A reply counts by itself, more if its own words tell the dimension too, and nearly nothing if it evades."""
    past = (_asked("team"),)
    assert _learnt("Most of us in the back office", past)["team"].confidence == REPLIED
    assert _learnt("About 12 people", past)["team"].confidence == BOTH
    for evasion in ("No idea", "ok", "Why do you ask?", "Keine Ahnung.", "non lo so"):
        assert _learnt(evasion, past)["team"].confidence == EVADED


def test_a_reply_to_another_agent_is_none() -> None:
    """What support asked closes no dimension."""
    past = (PastTurn("Hello", "<p>…?</p>", Agent.SUPPORT, 1, "team"),)
    assert _learnt("Most of us in the back office", past) == {}


def test_a_weaker_fact_takes_no_stronger_ones_place() -> None:
    """An evasion does not wipe out what was told; an equally strong word does replace it."""
    known = (Fact(dimension="budget", value="50k", seq=1, confidence=TOLD),)
    assert _learnt("No idea", (_asked("budget"),), known) == {}
    assert _learnt("Our budget is 80k", (), known)["budget"].value == "Our budget is 80k"


@given(st.text(max_size=700), st.sampled_from([None, *NAMES]))
@settings(deadline=None, max_examples=100)
def test_any_text_is_learnt_from(text: str, asked: str | None) -> None:
    """Whatever is said, what is learnt fits the ledger."""
    for fact in learn(text, (_asked(asked),) if asked else (), (), "en", seq=7):
        assert fact.seq == 7
        assert len(fact.value) <= 500
        assert fact.dimension in NAMES


def test_languages_are_told_apart_only_without_doubt() -> None:
    """Whole sentences have a language; two words or a mixture have none."""
    assert [language_of(text) for text in (
        "How many people would work with it, and what do you use today?",
        "Wie viele Personen arbeiten bei Ihnen mit der Software und welche ist das?",
        "Quel outil utilisez-vous pour cela et combien de personnes sont dans votre équipe ?",
        "¿Cuántas personas trabajan con ustedes y qué herramienta tienen hoy?",
        "Quanto avete messo da parte e chi decide nel vostro gruppo?",
    )] == list(LANGUAGES)  # fmt: skip
    assert language_of("non merci") is None
    assert language_of("") is None
