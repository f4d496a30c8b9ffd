"""The trained classifier: what is shipped, and that training and serving see the same features."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.agents import ANSWERING, Agent
from tests.support.turns import turn
from training.agents import macro_f1
from training.router.fitting import Labelled, auroc, calibration_error, fit, measured, probabilities, scaled
from training.router.utterances import digest, held_out, loose, situations, templated
from workers.orchestrator.classifier import Classifier, ClassifierDamaged, ClassifierRouter, shipped
from workers.orchestrator.features import runs_of, words_of
from workers.orchestrator.finding import NoFinding
from workers.orchestrator.rules import RuleRouter
from workers.orchestrator.state import STATE
from workers.orchestrator.words import significant


def test_what_is_shipped_was_trained_on_what_is_here() -> None:
    """The card names the utterances it was made of: after a change of them it must be trained again."""
    classifier, card = shipped()
    assert card.data_sha256 == digest(), "run `python -m training.router`"
    assert set(classifier.labels) == {agent.value for agent in ANSWERING}
    assert len(classifier.weights) == len(classifier.words.columns) + len(classifier.runs.columns) + len(STATE)


def test_utterances_are_many_in_five_languages_and_none_is_held_out() -> None:
    """At least 1,500 are worded one by one, each agent in each language among them; those held out are no others."""
    worded = [*loose(), *situations()]
    assert len(worded) >= 1_500
    trained = [*templated(), *worded]
    assert {(row.agent, row.language) for row in trained} == {
        (agent, language) for agent in ANSWERING for language in ("en", "de", "fr", "es", "it")
    }
    assert {row.text for row in trained} & {row.text for row in held_out()} == set()
    held = [(row.language, significant(row.text), _runs(row.text)) for row in held_out()]
    close = [row.text for row in worded if any(_alike(row.text, row.language, other) for other in held)]
    assert close == []


def _alike(text: str, language: str, other: tuple[str, frozenset[str], set[tuple[str, ...]]]) -> bool:
    """Tell whether a text shares five words in a row, or most of its words of three letters or more, with another."""
    spoken, words, runs = other
    if spoken != language:
        return False
    mine = significant(text)
    return len(mine & words) >= max(3, 0.6 * len(mine | words)) or bool(_runs(text) & runs)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def test_held_out_utterances_are_routed_far_better_than_by_chance() -> None:
    """Of those worded apart from all that was trained on, most find their agent; the rules find fewer."""
    rules = RuleRouter()
    classifier = ClassifierRouter(rules)
    rows = held_out()
    found = [(row.agent.value, classifier.judge(row.turn(), rules.judge(row.turn())).agent.value) for row in rows]
    by_rules = [(row.agent.value, rules.judge(row.turn()).agent.value) for row in rows]
    assert macro_f1(found) > 0.7
    assert macro_f1(found) > macro_f1(by_rules)


def test_a_foreign_file_is_refused() -> None:
    """Arrays that the card does not tell of are not read at all."""
    _, card = shipped()
    with pytest.raises(ClassifierDamaged, match=r"training\.router"):
        Classifier.read(b"something else", card)


@given(st.text(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_text_has_probabilities(text: str) -> None:
    """Whatever is written, the probabilities are numbers that add up to one."""
    classifier, _ = shipped()
    likely = classifier.probabilities(text, (0.0,) * len(STATE))
    assert np.isfinite(likely).all()
    assert abs(float(likely.sum()) - 1) < 1e-4


async def test_a_text_of_unknown_signs_is_left_to_the_rules() -> None:
    """Where nothing was ever seen in training, the classifier says so and claims nothing."""
    with pytest.raises(NoFinding):
        await ClassifierRouter(RuleRouter()).find(turn("日本語"), within=1)


async def test_the_classifier_tells_what_the_checks_found() -> None:
    """Risk, repetition and signals are those of the deterministic checks."""
    found = await ClassifierRouter(RuleRouter()).find(
        turn("Can you guarantee the price of the API?", "Can you guarantee the price of the API?"), within=1
    )
    assert (found.agent, found.repeats, found.risk.value) == (Agent.ADAPTIVE_RESPONSE, 1, "price_commitment")
    assert found.router.startswith("classifier-2-")


def test_words_and_runs_are_counted() -> None:
    """Words come with their neighbours, runs with the ends of their words."""
    assert words_of("Stock, stock is low") == {
        "stock": 2, "is": 1, "low": 1, "stock stock": 1, "stock is": 1, "is low": 1,
    }  # fmt: skip
    assert set(runs_of("ab")) == {" a", "ab", "b ", " ab", "ab ", " ab "}


def test_what_is_fitted_serves_as_it_was_fitted() -> None:
    """A classifier written and read again decides the same; scaling its temperature makes it no less likely."""
    texts = ["stock is low", "stock is gone", "invoice is wrong", "invoice is late", "low stock", "late invoice"] * 3
    labels = ["stock", "stock", "invoice", "invoice", "stock", "invoice"] * 3
    data = Labelled(texts, labels)
    fitted = fit(data)
    assert fitted.labels == ("invoice", "stock")
    assert measured(fitted, data)["accuracy"] == 1.0
    tuned = scaled(fitted, data)
    places = [fitted.labels.index(label) for label in labels]
    before, after = (np.log(probabilities(one, data)[np.arange(len(places)), places]).mean() for one in (fitted, tuned))
    assert after >= before


def test_measures_are_what_they_are_called() -> None:
    """Who is right as often as he is sure has no calibration error; what is told apart wholly has an AUROC of 1."""
    sure = np.array([0.75, 0.75, 0.75, 0.75], dtype=np.float32)
    assert calibration_error(sure, np.array([True, True, True, False])) == pytest.approx(0)
    assert calibration_error(sure, np.array([False] * 4)) == pytest.approx(0.75)
    high, low = np.array([0.9, 0.8], dtype=np.float32), np.array([0.1, 0.2], dtype=np.float32)
    assert auroc(high, low) == 1.0
    assert auroc(low, high) == 0.0
