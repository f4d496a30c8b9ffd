"""Fitted vectors: what is said with the same neighbours is near, in the same way every time."""

import math

from infra.embeddings.latent import DIMS, fit, in_context
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


def test_pieces_lean_to_their_document() -> None:
    """Pieces of one document come nearer to each other, one alone keeps its direction, and one of zeros gets theirs."""
    vectors = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]]
    one, other, alone, silent = in_context(vectors, [7, 7, 4, 7])
    assert _cosine(one, other) > 0.5
    assert math.isclose(_cosine(alone, vectors[2]), 1.0)
    assert math.isclose(_cosine(silent, [1.0, 1.0, 0.0]), 1.0)


def test_a_space_is_named_by_what_stands_together() -> None:
    """The same texts in other documents give another name; how documents are numbered does not matter."""
    said = [terms(text, "en") for text in _TEXTS]
    assert fit(said, [1, 1, 1, 2, 2]).name == fit(said, [9, 9, 9, 3, 3]).name
    assert fit(said, [1, 1, 1, 2, 2]).name != fit(said, [1, 1, 2, 2, 2]).name
