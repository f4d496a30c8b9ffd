"""What a visitor may send, and the state machine as data."""

import pytest
from pydantic import ValidationError

from schemas.ids import turn_id_for
from schemas.turns import MAX_TEXT, OPEN, TERMINAL, TRANSITIONS, TurnRequest, TurnState


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": ""}',
        b'{"text": "   \\n "}',
        b'{"text": 7}',
        b'{"text": "a\\u0000b"}',
        b'{"text": "\\ud800"}',
        b'{"text": "hi", "channel": "Web Chat"}',
        b'{"text": "hi", "metadata": []}',
        b'{"text": "hi", "metadata": {"k": "a\\u0000"}}',
        b'{"text": "hi", "extra": 1}',
        b"{}",
        b"[]",
        b"nonsense",
    ],
)
def test_a_bad_message_is_refused(body: bytes) -> None:
    """Empty, blank, mistyped, NUL, half a surrogate pair, unknown fields: each is a validation error."""
    with pytest.raises(ValidationError):
        TurnRequest.model_validate_json(body)


def test_a_message_has_a_length_and_its_metadata_a_size() -> None:
    """The longest text passes, one character more does not; metadata ends at 4 KiB."""
    assert TurnRequest(text="x" * MAX_TEXT).text
    with pytest.raises(ValidationError):
        TurnRequest(text="x" * (MAX_TEXT + 1))
    with pytest.raises(ValidationError, match="larger than"):
        TurnRequest(text="hi", metadata={"k": "v" * 5_000})


def test_a_key_names_the_same_turn_everywhere_and_tenants_share_none() -> None:
    """The id derives from tenant and key alone."""
    assert turn_id_for("acme", "k1") == turn_id_for("acme", "k1")
    assert len({turn_id_for("acme", "k1"), turn_id_for("acme", "k2"), turn_id_for("other", "k1")}) == 3


def test_every_open_state_can_reach_an_end_and_ends_absorb() -> None:
    """From each open state some path leads to a terminal one; from a terminal one none leads anywhere."""
    assert set(TRANSITIONS) == set(TurnState)
    assert all(not TRANSITIONS[state] for state in TERMINAL)
    for start in OPEN:
        reached, frontier = {start}, {start}
        while frontier:
            frontier = {after for state in frontier for after in TRANSITIONS[state]} - reached
            reached |= frontier
        assert reached & TERMINAL
