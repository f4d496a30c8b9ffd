"""Personal data becomes placeholders, what only looks like it stays."""

import uuid
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.redaction.redactor import Redactor
from infra.redaction.spans import Kind, Span, placeholder, without_overlaps
from schemas.guardrail_policy import RedactionPolicy

QUICK = settings(max_examples=150, deadline=None, database=None)
REDACTOR = Redactor()
PIECES = [
    "jane@example.com",
    "+1 202 555 0143",
    "4111 1111 1111 1111",
    "DE89370400440532013000",
    "536-22-1234",
    "203.0.113.9",
    "2001:db8::1",
    "password=hunter2",
    "my name is Jane Miller",
    "Dear Mr Smith,",
    "12 Main Street",
    "call me on 2125550187",
    "Bearer abc123",
    "[email]",
    "[phone 2]",
    "[id number]",
    *(" ", "\n", ". ", ", ", "order ", "tel ", "SSN ", "version "),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Write to jane@example.com or call +1 202 555 0143.", "Write to [email] or call [phone]."),
        ("a@example.com, b@example.com, A@EXAMPLE.com", "[email], [email 2], [email]"),
        ("+49 171 3920 012, again +49-171-3920012", "[phone], again [phone]"),
        ("2001:db8::1jane@example.com", "[ip][email]"),
        ("card 4242-4242-4242-4242, IBAN DE89 3704 0044 0532 0130 00 today", "card [card], IBAN [iban] today"),
        ("https://bot:s3cr3t@git.example.com/x", "https://bot:[secret]@git.example.com/x"),
        ("my SSN 536-22-1234 from 203.0.113.9", "my SSN [id number] from [ip]"),
        ("inside 10.0.0.1, outside 203.0.113.9", "inside [ip], outside [ip]"),
        ("Mein Name ist Ralf von der Heide, Hauptstraße 5, 10115 Berlin!", "Mein Name ist [name], [address]!"),
        ("Hi, my name is Joe. I'd like a macchiato", "Hi, my name is [name]. I'd like a macchiato"),
    ],
)
def test_a_placeholder_says_what_was_there(text: str, cleaned: str) -> None:
    """Each value becomes its kind, and the same value the same placeholder throughout a text."""
    assert REDACTOR.clean(text) == cleaned


def test_the_counts_are_part_of_what_is_redacted() -> None:
    """Training data is told how much was replaced of each kind."""
    redacted = REDACTOR.redact("jane@example.com and bob@example.com from 203.0.113.9")
    assert redacted.text == "[email] and [email 2] from [ip]"
    assert redacted.counts == {"email": 2, "ip": 1}
    assert REDACTOR.redact("nothing here").counts == {}


@QUICK
@given(TEXTS)
def test_redacting_twice_changes_nothing(text: str) -> None:
    """No placeholder is read as a cue or a value, and no input makes the redactor fail."""
    once = REDACTOR.clean(text)
    assert REDACTOR.clean(once) == once


@QUICK
@given(TEXTS)
def test_findings_are_in_order_and_apart(text: str) -> None:
    """Findings lie inside the text, follow each other and never overlap."""
    spans = REDACTOR.spans(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))


@QUICK
@given(
    number=st.uuids(),
    epoch=st.floats(1_577_836_800, 2_177_452_800),
    seconds=st.floats(0, 10_000, allow_nan=False),
    offset=st.integers(0, 10**10),
)
def test_what_operators_live_by_is_left_alone(number: uuid.UUID, epoch: float, seconds: float, offset: int) -> None:
    """Identifiers, times, durations and offsets are nobody's data."""
    when = datetime.fromtimestamp(epoch, UTC).isoformat()
    line = f"turn {number} at {when} took={seconds} offset={offset} key {number.hex}"
    assert REDACTOR.clean(line) == line


@pytest.mark.parametrize(
    "text",
    ["15:30", "10::30", "a::b", "1.2.3.4.5", "version 1.2.3.4", "2024-00317", "0.1512345678", "127.0.0.1", "::1"],
)
def test_lookalikes_are_left_alone(text: str) -> None:
    """Times, versions, numbers and the machine itself are no addresses or telephones."""
    assert REDACTOR.clean(text) == text


def test_a_policy_adds_patterns_and_leaves_kinds() -> None:
    """An installation's own patterns win, and kinds it wants left are left."""
    own = Redactor(policy=RedactionPolicy(keep=("name", "ip"), patterns={"member": r"\bM-\d{6}\b"}))
    assert own.clean("my name is Jane, M-123456 from 203.0.113.9") == "my name is Jane, [member] from 203.0.113.9"


@pytest.mark.parametrize(
    "section",
    [
        {"keep": ["secret"]},
        {"keep": ["card"]},
        {"patterns": {"x": "("}},
        {"patterns": {"x": "a*"}},
        {"patterns": {"Not A Kind": "a"}},
        {"unknown": 1},
    ],
)
def test_a_policy_that_cannot_hold_is_refused(section: dict[str, object]) -> None:
    """Secrets and cards cannot be left, and a pattern must be one that finds something definite."""
    with pytest.raises(ValidationError):
        RedactionPolicy.model_validate(section)


def test_of_overlapping_findings_the_first_stays() -> None:
    """A password in a URL is not read once more as an address."""
    secret, email = Span(3, 9, Kind.SECRET), Span(5, 20, Kind.EMAIL)
    assert without_overlaps([secret, email, Span(30, 31, Kind.IP)]) == [secret, Span(30, 31, Kind.IP)]
    assert [placeholder(Kind.NATIONAL_ID), placeholder("member", 2)] == ["[id number]", "[member 2]"]


@pytest.mark.parametrize("filler", ["1", "1 ", "a", "a.", "@", "A1", "0-", ":", "f:", "Via A", "my name is "])
def test_long_texts_take_no_longer_by_their_square(filler: str) -> None:
    """A text of any one piece repeated is through within the test's clock."""
    REDACTOR.clean(filler * (16_000 // len(filler)))
