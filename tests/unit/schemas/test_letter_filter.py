"""A filter says exactly which dead letters are meant, or is refused with a sentence."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.letter_filter import Comparison, Field, FilterError, Joined, LetterFilter, Not, parse_filter

_VALUES: dict[Field, st.SearchStrategy[str]] = {
    Field.AGENT: st.sampled_from(["discovery", "support"]),
    Field.REASON: st.sampled_from(["queue_deadline", "worker_lost"]),
    Field.STATE: st.sampled_from(["unanswered", "replayed"]),
    Field.STAGE: st.sampled_from(["decode", "queued"]),
    Field.TURN: st.uuids().map(str),
    Field.CREATED: st.sampled_from(["2h", "7d", "2026-01-31T09:00:00Z", "2026-01-31"]),
    Field.TIMES: st.integers(0, 9).map(str),
    Field.REPLAYS: st.integers(0, 9).map(str),
}
_FREE = st.text(alphabet="andoritß日 \"'\\=()<>,!.:-", min_size=1, max_size=20)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    """Any comparison a person could write."""
    field = draw(st.sampled_from(list(Field)))
    values = _VALUES.get(field, _FREE)
    if field is Field.CREATED:
        return Comparison(field, draw(st.sampled_from(["<", ">", "<=", ">="])), (draw(values),))
    operators = ["=", "!=", "in"] + (["<", ">", "<=", ">="] if field in (Field.TIMES, Field.REPLAYS) else [])
    operator = draw(st.sampled_from(operators))
    many = draw(st.lists(values, min_size=1, max_size=3, unique=True)) if operator == "in" else [draw(values)]
    return Comparison(field, operator, tuple(many))  # pyright: ignore[reportArgumentType] - one of the operators above


def _joined(word: str, parts: list[LetterFilter]) -> LetterFilter:
    flat: list[LetterFilter] = []
    for part in parts:
        flat += part.parts if isinstance(part, Joined) and part.word == word else (part,)
    return Joined(word, tuple(flat))  # pyright: ignore[reportArgumentType] - "and" or "or"


filters: st.SearchStrategy[LetterFilter] = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(Not),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)).map(lambda t: _joined(*t)),
    ),
    max_leaves=8,
)


@given(filters)
def test_a_filter_written_down_is_read_again(chosen: LetterFilter) -> None:
    """What a filter's text says is that filter."""
    assert parse_filter(str(chosen)) == chosen


@given(
    st.binary().map(lambda raw: raw.decode("latin-1"))
    | st.text(alphabet="agentreso()=<>!,\"'\\ndi\x00\ud800", max_size=60)
)
@example("((((" * 10)
@example("not " * 100 + "state=unanswered")
@example("created > 99999w")
@example("created < 0001-01-01T00:00:00+23:59")
def test_any_text_is_a_filter_or_is_refused(text: str) -> None:
    """Whatever is typed, the parser gives a filter or our error with a sentence, and nothing else."""
    try:
        found = parse_filter(text)
    except FilterError:
        return
    assert parse_filter(str(found)) == found


def test_the_words_bind_as_in_english() -> None:
    """`not` binds tighter than `and`, `and` tighter than `or`; parentheses win."""
    a, b, c = (Comparison(Field.TIMES, "=", (n,)) for n in "123")
    assert parse_filter("times=1 and times=2 or times = 3") == Joined("or", (Joined("and", (a, b)), c))
    assert parse_filter("times=1 AND (times=2 OR times=3)") == Joined("and", (a, Joined("or", (b, c))))
    assert parse_filter("not times=1 and times=2") == Joined("and", (Not(a), b))
    assert parse_filter("not (times=1 and times=2)") == Not(Joined("and", (a, b)))
    assert parse_filter("reason in (queue_deadline, 'worker_lost')") == Comparison(
        Field.REASON, "in", ("queue_deadline", "worker_lost")
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("colour=blue", "begins with one of: agent, reason"),
        ("agent=marketing", "'agent' is one of: discovery"),
        ("reason=because", "'reason' is one of: undecodable"),
        ("state<unanswered", "has no order"),
        ("created=2h", "created < 2h means"),
        ("created<yesterday", "takes a moment such as"),
        ("times=many", "a number from 0"),
        ("turn=1", "36 characters"),
        ("agent", "After a field comes"),
        ("agent=", "A value is missing"),
        ("agent=discovery state=unanswered", "join comparisons"),
        ("(agent=discovery", "close it with ')'"),
        ("conversation='open", "quote is open"),
        ("reason in queue_deadline", "list in parentheses"),
        ("state=unanswered and " * 100 + "times=1", "longer than 2000"),
        ("times=1 or " * 60 + "times=1", "more than 50"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_to_write(text: str, sentence: str) -> None:
    """Each mistake has a sentence that helps."""
    with pytest.raises(FilterError, match=sentence.replace("(", r"\(").replace(")", r"\)").replace("'", ".")):
        parse_filter(text)


def test_a_sentence_repeats_no_value() -> None:
    """A refused value may be somebody's words: the sentence does not repeat it."""
    for text in ("agent=secretword", "turn=secretword", "times=secretword", "created<secretword", "secretword=1"):
        with pytest.raises(FilterError) as refused:
            parse_filter(text)
        assert "secretword" not in str(refused.value)
