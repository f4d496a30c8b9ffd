"""Fitted vectors: what is said with the same neighbours is near, in the same way every time."""

import math

from infra.embeddings.latent import DIMS, fit
from infra.embeddings.words import terms

_TEXTS = [
    "The invoice is paid by card.",
    "The bill is paid by card.",
    "The invoice and the bill are sent by mail.",
    "Trackers count visits of a page.",
    "A script on the page counts visits.",
]


def _cosine(one: list[float], other: list[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths


def test_related_texts_are_near() -> None:
    """A text about payment is nearer to another one than to one about tracking."""
    said = [terms(text, "en") for text in _TEXTS]
    latent = fit(said)
    vectors = [latent.vector(one) for one in said]
    assert {len(vector) for vector in vectors} == {DIMS}
    assert _cosine(vectors[0], vectors[1]) > _cosine(vectors[0], vectors[3]) + 0.2


def test_fitting_is_repeatable_and_named_by_its_texts() -> None:
    """The same texts give the same name and vectors; other texts another name."""
    said = [terms(f"{text} {number}", "en") for number in range(80) for text in _TEXTS]
    first, second = fit(said), fit(said)
    assert first.name == second.name
    assert first.vector(said[0]) == second.vector(said[0])
    assert fit(said[1:]).name != first.name


def test_unknown_words_have_no_direction() -> None:
    """A text of words that the space does not know is zero, and so is every text of a space without words."""
    assert set(fit([["a"]]).vector(["unknown"])) == {0.0}
    assert set(fit([[]]).vector(["a"])) == {0.0}
