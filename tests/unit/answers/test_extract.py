"""The scanner of a streamed JSON reply, against every split and against whole parsers."""

import gc
import json
import random
import sys
from collections.abc import Iterable, Iterator
from types import FrameType

import jiter
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.answers.extract import MAX_DEPTH, MAX_FENCE_CHARS, FieldScanner, MalformedAnswer

QUICK = settings(max_examples=120, deadline=None, database=None)

DOCUMENTS = [
    '{"dimension":"fit","html_response":"<p>Hi</p>"}',
    '{"html_response":""}',
    ' \n{ "html_response" : "a\\"b\\\\" , "n" : [ 1 , -2.5e+3 ] }\n',
    '{"d\\u0069mension":"\\u00e9\\n","html_respons\\u0065":"\\ud83d\\ude00\\/"}',
    '{"a":{"html_response":"no"},"b":["html_response",{"html_response":"no"}],"html_response":"yes"}',
    '{"x":"html_response","html_response":"}{][,:","t":true,"f":false,"z":null}',
    '{"html_response":"\\ud83dx\\ude00 \\ud83d\\ud83d\\ude00\\ud800"}',
    '```json\n{"html_response":"fenced"}\n```',
    '````\n{"a":[],"b":{},"html_response":"x"}',
    '\ufeff{"html_response":"caf\u00e9 \U0001f600"} and then some prose {"html_response":1}',
    '{"s":"tail\\\\","html_response":"\\\\u0041\\\\","u":"\\\\"}',
]


def fed(pieces: Iterable[str]) -> tuple[str, dict[str, object], dict[str, str]]:
    scanner = FieldScanner()
    text = "".join([scanner.feed(piece) for piece in pieces])
    whole = scanner.finish()
    assert text == scanner.text
    return text, whole, scanner.fields


def object_in(document: str) -> str:
    start = document.index("{")
    return document[start : start + json.JSONDecoder().raw_decode(document[start:])[1]]


def in_two_and_three(document: str) -> Iterator[list[str]]:
    for first in range(len(document) + 1):
        yield [document[:first], document[first:]]
        for second in range(first, len(document) + 1, 1 + len(document) // 60):
            yield [document[:first], document[first:second], document[second:]]


def split_at_random(document: str, seed: int, longest: int = 9) -> list[str]:
    source, pieces, at = random.Random(seed), list[str](), 0
    while at < len(document):
        end = at + source.randint(0, longest)
        pieces.append(document[at:end])
        at = end
    return pieces


def top_level_keys(document: str) -> list[str]:
    objects: list[list[str]] = [[]]
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: objects.append([key for key, _ in pairs]))
    try:
        decoder.raw_decode(document)
    except ValueError:
        return []
    return objects[-1]


def repaired(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_scanner_gives_the_same_for_every_split_in_two_and_three(document: str) -> None:
    """However a reply is cut, the field's text and the earlier fields are those of a whole parse."""
    expected = json.loads(object_in(document))
    text = repaired(expected["html_response"])
    for pieces in in_two_and_three(document):
        got, whole, _ = fed(pieces)
        assert got == text
        assert whole["html_response"] == text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_scanner_hands_out_only_whole_characters(document: str) -> None:
    """Fed character by character, each piece handed out is encodable and the pieces only ever append."""
    scanner = FieldScanner()
    expected = repaired(json.loads(object_in(document))["html_response"])
    shown = ""
    for char in document:
        piece = scanner.feed(char)
        piece.encode()
        shown += piece
        assert expected.startswith(shown)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["html_response", "a", ""]) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.text(max_size=6).filter(lambda key: key != "html_response")


@QUICK
@given(
    before=st.dictionaries(KEYS, VALUES, max_size=3),
    text=st.text(max_size=60),
    after=st.dictionaries(KEYS, VALUES, max_size=2),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
    seed=st.integers(0, 1_000),
)
def test_scanner_agrees_with_a_full_parse_of_random_objects(
    before: dict[str, object],
    text: str,
    after: dict[str, object],
    ascii_only: bool,
    indent: int | None,
    seed: int,
) -> None:
    """For any JSON object and any split, text, earlier string fields and the whole object equal jiter's."""
    for key in before:
        after.pop(key, None)
    document = json.dumps({**before, "html_response": text, **after}, ensure_ascii=ascii_only, indent=indent)
    oracle = jiter.from_json(document.encode())
    got, whole, fields = fed(split_at_random(document, seed))
    assert got == oracle["html_response"]
    assert whole == oracle
    assert fields == {key: value for key, value in before.items() if isinstance(value, str)}


@QUICK
@given(
    document=st.lists(
        st.sampled_from(
            ["{", "}", "[", "]", ",", ":", '"', '"a"', '"html_response"', '"x"', " ", "1", "-", "true", "\\"]
        ),
        max_size=14,
    ).map(lambda pieces: '{"html_response":"' + "".join(pieces)),
    seed=st.integers(0, 1_000),
)
def test_scanner_accepts_what_a_strict_parser_accepts_and_nothing_else(document: str, seed: int) -> None:
    """Of random token soups the scanner completes exactly the objects that parse and have the field once."""
    scanner = FieldScanner()
    try:
        for piece in split_at_random(document, seed, longest=3):
            scanner.feed(piece)
        scanner.finish()
        accepted = True
    except MalformedAnswer:
        accepted = False
    assert accepted == (top_level_keys(document).count("html_response") == 1)


@QUICK
@given(
    units=st.lists(st.sampled_from(["\ud83d", "\ude00", "x", "\U0001f600", "\ud800"]), max_size=12),
    seed=st.integers(0, 99),
)
def test_scanner_mends_surrogates_that_an_upstream_left_raw(units: list[str], seed: int) -> None:
    """Raw surrogate halves join across deltas, and those without a partner become U+FFFD."""
    body = "".join(units)
    got, _, _ = fed(split_at_random(f'{{"html_response":"{body}"}}', seed, longest=2))
    assert got == body.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def test_scanner_never_shows_half_of_an_escaped_pair() -> None:
    """An escaped emoji that spans deltas comes out at once, when its second half is complete."""
    scanner = FieldScanner()
    pieces = [scanner.feed(char) for char in '{"html_response":"\\ud83d\\ude00']
    assert [piece for piece in pieces if piece] == ["\U0001f600"]


def test_scanner_tells_when_the_field_begins_and_ends() -> None:
    """`started`, `closed` and `complete` turn true with the quote or brace that makes them so."""
    scanner = FieldScanner()
    scanner.feed('{"dimension":"fit","html_response":')
    assert (scanner.started, scanner.fields) == (False, {"dimension": "fit"})
    scanner.feed('"')
    assert (scanner.started, scanner.closed) == (True, False)
    scanner.feed('x"')
    assert (scanner.closed, scanner.complete) == (True, False)
    scanner.feed("}")
    assert scanner.complete


def test_scanner_reads_another_field_when_asked() -> None:
    """The name of the wanted field is the caller's."""
    scanner = FieldScanner("reply")
    assert scanner.feed('{"html_response":"no","reply":"yes"}') == "yes"
    assert scanner.finish() == {"html_response": "no", "reply": "yes"}


def test_scanner_takes_raw_line_ends_inside_strings() -> None:
    """A model that does not escape a line end is still understood, to the end."""
    assert fed(['{"html_response":"a\nb\tc"}'])[0] == "a\nb\tc"


MALFORMED = [
    "H",
    "[",
    '"',
    "1",
    "``{",
    "```json H",
    "`" * (MAX_FENCE_CHARS + 1),
    "{,",
    "{a",
    "{'",
    '{"a" "',
    '{"a":}',
    '{"a":,',
    '{"a":1,}',
    '{"a":[1,]',
    '{"a":[1}',
    '{"a":{]',
    '{"a":tx',
    '{"a":truex',
    '{"a":nul,',
    '{"a":01,',
    '{"a":1.,',
    '{"a":-,',
    '{"a":N',
    '{"a":' + "1" * 1_001,
    '{"a":"\\x',
    '{"a":"\\u12g',
    '{"a":1 2',
    '{"html_response":1',
    '{"html_response":n',
    '{"html_response":{',
    '{"html_response":[',
    '{"a":"html_response"}',
    "{}",
    '{"a":{"html_response":"x"}}',
    '{"a":' + "[" * MAX_DEPTH,
]


@pytest.mark.parametrize("document", MALFORMED)
def test_scanner_refuses_as_soon_as_nothing_can_help(document: str) -> None:
    """The character that makes a text hopeless raises, and so does every later call; no text is quoted."""
    scanner = FieldScanner()
    for char in document[:-1]:
        assert scanner.feed(char) == ""
    with pytest.raises(MalformedAnswer) as caught:
        scanner.feed(document[-1])
    with pytest.raises(MalformedAnswer):
        scanner.feed('{"html_response":"x"}')
    with pytest.raises(MalformedAnswer):
        scanner.finish()
    assert len(document) < 8 or document not in str(caught.value)


@pytest.mark.parametrize(
    "document",
    ['{"html_response":"shown\\x', '{"html_response":"shown" 1', '{"html_response":"shown","html_response":"again"}'],
)
def test_scanner_hands_out_what_stands_before_a_fault(document: str) -> None:
    """Text before a fault in the same delta is returned; the fault is raised by the next call."""
    scanner = FieldScanner()
    assert scanner.feed(document) == "shown"
    with pytest.raises(MalformedAnswer):
        scanner.feed("more")


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ("", "before a JSON object began"),
        ("```json\n", "before a JSON object began"),
        ('{"a":1', "before the field"),
        ('{"html_response":"a', "inside the field"),
        ('{"html_response":"a\\', "inside the field"),
        ('{"html_response":"a"', "after the field"),
    ],
)
def test_scanner_says_where_a_reply_was_cut_off(document: str, where: str) -> None:
    """A reply that ends early is refused at the end, with the place in words."""
    scanner = FieldScanner()
    scanner.feed(document)
    with pytest.raises(MalformedAnswer, match=where):
        scanner.finish()


def lines_run(scanner: FieldScanner, delta: str) -> int:
    count = 0

    def trace(_frame: FrameType, event: str, _arg: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.disable()  # what a collection runs would be counted too
    sys.settrace(trace)  # pyright: ignore[reportArgumentType]  # the stub wants a recursive alias
    try:
        scanner.feed(delta)
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def test_scanner_does_the_same_work_per_delta_at_64_kilobytes() -> None:
    """The last kilobyte of a long reply runs exactly as many lines as the second, and little is ever held back."""
    unit = 'text \\"q\\" <p>\\u00e9\\ud83d\\ude00</p>\\n..'
    unit += "." * (-len(unit) % 4)
    scanner = FieldScanner()
    scanner.feed('{"html_response":"')
    counts: list[int] = []
    for _ in range(65_536 // len(unit)):
        for at in range(0, len(unit), 4):
            counts.append(lines_run(scanner, unit[at : at + 4]))
            assert scanner.held <= 12
    period = len(unit) // 4
    assert counts[period : 2 * period] == counts[-period:]


def test_scanner_passes_plain_text_without_looking_at_what_came_before() -> None:
    """Inside the field a delta without quote or backslash is returned as the very same object."""
    scanner = FieldScanner()
    scanner.feed('{"html_response":"')
    delta = "plain <b>text</b>"
    assert scanner.feed(delta) is delta
    assert lines_run(scanner, delta) <= 4
