"""Words of a question meet those of a text, in any language a knowledge base has, and are nothing but words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.embeddings.words import MOST_WORDS, asked_terms, language_of, terms


@pytest.mark.parametrize(
    ("language", "said", "asked"),
    [
        ("en", "We refunded the invoices.", "refunds for an invoice"),
        ("de", "Die Rechnungen werden jährlich verschickt.", "Rechnung jaehrlich, Rechnung jährlich"),
        ("fr", "Les factures sont envoyées.", "une facture envoyée"),
        ("es", "Las facturas se envían cada mes.", "factura cada meses"),
        ("it", "Le fatture sono inviate per posta.", "fattura inviata"),
    ],
)
def test_endings_do_not_matter(language: str, said: str, asked: str) -> None:
    """Every language is told by its common words, and two forms of a word are one term."""
    assert language_of(said) == language
    stored = set(terms(said, language))
    assert len(stored & {term for _, term in asked_terms(asked, ["en", language])}) >= 2


def test_scripts_without_spaces_are_cut_in_twos() -> None:
    """A question in Japanese meets a text that has one of its words in the middle."""
    assert {term for _, term in asked_terms("返品", ["en"])} <= set(terms("商品の返品について", "en"))


def test_common_words_are_left_out_unless_alone() -> None:
    """What any text has tells nothing, but it is all there is of some questions."""
    assert [term for _, term in asked_terms("what is the price?", ["en"])] == ["price"]
    assert asked_terms("what is it?", ["en"]) != []


@given(st.text(max_size=300))
def test_terms_are_words(said: str) -> None:
    """No character of a term can end a quote or mark a tenant, and a question has no more words than it may have."""
    for term in terms(said, "en"):
        assert re.fullmatch(r"[^\s'\"\\@:&|!()<>*]+", term)
    assert len({word for word, _ in asked_terms(said * 20, ["de", "en"])}) <= MOST_WORDS
