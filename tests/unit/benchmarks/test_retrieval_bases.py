"""What the retrieval bench measures on: disjoint knowledge bases, and questions that nothing was chosen on."""

from benchmarks.corpus import Question, bases
from benchmarks.retrieval import difference
from schemas.knowledge import Document
from tests.support.knowledge import document


def _documents(n: int, *, pieces: int) -> list[tuple[Document, list[Question]]]:
    return [
        (
            document(f"{number}.md", *(f"{number} {piece}" for piece in range(pieces))),
            [Question("?", f"{number}.md", "")],
        )
        for number in range(n)
    ]


def test_small_knowledge_bases_share_no_document() -> None:
    """Documents are dealt out to as many knowledge bases as they fill; a large one has all of them, filled up."""
    documents, filling = _documents(20, pieces=3), [document("talk", "a", "b"), document("more", "c", "d")]
    small = bases(documents, filling, 12)
    assert [sum(len(one.pieces) for one in taken) for taken, _ in small] == [12] * 5
    assert len({one.source for taken, _ in small for one in taken}) == 20
    assert sum(len(asked) for _, asked in small) == 20
    (large,) = bases(documents, filling, 62)
    assert {one.source for one in large[0]} >= {"talk", "0.md", "19.md"}
    assert sum(len(one.pieces) for one in large[0]) == 62


def test_all_questions_of_a_document_are_in_one_half() -> None:
    """A half is told by the document alone, and both have some."""
    one, other = Question("a", "a.md", "faq"), Question("b", "a.md", "heading")
    assert one.half == other.half
    assert {Question("?", f"{number}.md", "").half for number in range(50)} == {"tuning", "test"}


def test_a_difference_is_told_with_its_interval() -> None:
    """Equal figures differ by nothing for certain; where one document alone makes the lead, it may be chance."""
    sources = [f"{number}.md" for number in range(40)]
    assert difference([1.0] * 40, [1.0] * 40, sources) == [0.0, 0.0, 0.0]
    assert difference([1.0] * 40, [0.0] * 40, sources) == [1.0, 1.0, 1.0]
    mean, low, high = difference([1.0, *[0.5] * 39], [0.5] * 40, sources)
    assert 0 == low < mean < high
