"""Nothing that a visitor said and nothing secret passes the redaction."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError

from infra.telemetry.redaction import REDACTED, mask, put_in_force, redact, redact_item
from schemas.guardrail_policy import RedactionPolicy
from schemas.turns import TurnRequest

PLANTED = "hunter2-PLANTED"


class Holder(BaseModel):
    """Something whose repr would show its text."""

    text: str


@pytest.mark.parametrize(
    "key",
    [
        "text",
        "input",
        "html",
        "content",
        "prompt",
        "messages",
        "authorization",
        "Authorization",
        "token",
        "secret",
        "password",
        "api_key",
        "X-Api-Key",
        "widget_secret",
        "frontier_api_key",
        "gen_ai.input.messages",
        "Set-Cookie",
        "key_pepper",
    ],
)
@pytest.mark.parametrize("value", [PLANTED, {"role": PLANTED}, [PLANTED], PLANTED.encode()])
def test_a_telling_key_shows_no_value(key: str, value: object) -> None:
    """Whatever stands under a telling key is replaced, at any depth."""
    assert redact_item(key, value) == REDACTED
    assert PLANTED not in str(redact({"outer": [{key: value}]}))


@pytest.mark.parametrize(
    "line",
    [
        f"Authorization: Bearer {PLANTED}",
        f"sent header bearer {PLANTED}, got 401",
        f"'authorization': 'Bearer {PLANTED}'",
        f"key fl_k7d2_{PLANTED} was revoked",
        f"Incorrect API key provided: sk-{PLANTED}",
        f"slack said no to xoxb-{PLANTED}",
        f"postgresql+asyncpg://fairlead:{PLANTED}@db:5432/fairlead is down",
        f"redis://:{PLANTED}@cache:6379/0",
        f"https://user:p@ss-{PLANTED}@host/path",
        f"password={PLANTED} host=db",
        f"GET /v1/ws?token={PLANTED}&seq=3",
        f'{{"text": "buy \\"{PLANTED}\\" now", "turn": 1}}',
        f"TurnRequest(text='{PLANTED}', channel='api')",
        f"{{'content': '{PLANTED}'}}",
        f'cut in the middle {{"html_response": "<p>{PLANTED}',
        f"[SQL: UPDATE turns SET x=$1]\n[parameters: ('a', '{PLANTED}')]\n(Background on this error)",
        f"[SQL: SELECT 1]\n[parameters: ('a ] b', '{PLANTED}', 'cut in the mid",
        f"invalid input for query argument $6: '{PLANTED}' (expected str, got int)",
        f'invalid input syntax for type uuid: "{PLANTED}"',
        f"duplicate key value\nDETAIL:  Failing row contains (1, {PLANTED}).",
    ],
)
def test_a_secret_inside_a_sentence_is_masked(line: str) -> None:
    """Secrets and quoted message text are found wherever a library put them."""
    assert PLANTED not in mask(line)
    assert PLANTED not in str(redact(ValueError(line)))


def test_an_operator_keeps_what_helps() -> None:
    """Identifiers, numbers, states and plain sentences stay readable."""
    plain = {"turn_id": "6f1c0d3e-6f0a-5a3c-9b8e-0d6a4f4b2c11", "first_token": 0.4, "input_tokens": 12, "seq": 3}
    assert redact(plain) == plain
    sentence = "the lane agent.discovery had no worker for 10 s; start one"
    assert mask(sentence) == sentence
    assert mask("key fl_k7d2_abcdefghijk is revoked") == f"key fl_k7d2_{REDACTED} is revoked"
    assert mask("redis://:pw@cache:6379/0 is down") == f"redis://:{REDACTED}@cache:6379/0 is down"


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("no reply to jane@example.com", "no reply to [email]"),
        ("conversation +1 202 555 0143 is closed", "conversation [phone] is closed"),
        ("refused 203.0.113.9, kept 10.0.0.5:5432 and 127.0.0.1", "refused [ip], kept 10.0.0.5:5432 and 127.0.0.1"),
        ("bad row 4111 1111 1111 1111", "bad row [card]"),
        ("https://bot:pw@git.example.com/jane@example.com", "https://bot:[redacted]@git.example.com/[email]"),
    ],
)
def test_personal_data_is_a_placeholder(line: str, masked: str) -> None:
    """What `infra/redaction` finds does not pass, under any key and as a key; servers inside a house stay readable."""
    assert mask(line) == masked
    assert redact({"note": [line], line: 1}) == {"note": [masked], masked: 1}


@pytest.mark.parametrize("text", ["4111111111111111", "hf_abcdefghijkl", "ghp_" + "a" * 24, "npm_" + "b" * 32])
def test_what_looks_like_an_identifier_is_still_looked_at(text: str) -> None:
    """The short way for identifiers and words lets no card and no key through."""
    assert text not in mask(text)


def test_a_policy_is_put_in_force() -> None:
    """An installation's own patterns hold for logs and spans from then on, and can be taken back."""
    assert mask("member M-123456") == "member M-123456"
    assert mask("acme") == "acme"
    put_in_force(RedactionPolicy(patterns={"member": r"M-\d{6}|\bacme\b"}, keep=("private_ip",)))
    try:
        assert mask("member M-123456") == "member [member]"
        assert mask("acme") == "[member]"
    finally:
        put_in_force(RedactionPolicy())
    assert mask("member M-123456") == "member M-123456"


def test_an_unknown_object_is_only_named() -> None:
    """An object's repr is never asked for: it may hold a message."""
    assert redact(Holder(text=PLANTED)) == "<Holder>"
    assert redact([Holder(text=PLANTED), PLANTED.encode()]) == ["<Holder>", "<bytes>"]


def test_errors_of_libraries_do_not_quote_their_input() -> None:
    """A pydantic error and a database error, as really raised, lose the values they quote."""
    with pytest.raises(ValidationError) as invalid:
        TurnRequest.model_validate({"text": {PLANTED: 1}, "more": PLANTED})
    database = DBAPIError("INSERT INTO turns VALUES ($1)", {"input_text": PLANTED}, Exception("refused"))
    for error in (invalid.value, database):
        assert PLANTED in str(error)
        assert PLANTED not in str(redact(error))


def test_deep_and_circular_data_ends() -> None:
    """Data that contains itself is cut, not followed for ever."""
    circle: dict[str, object] = {}
    circle["again"] = circle
    assert "<dict>" in str(redact(circle))


@given(st.text(), st.text(max_size=200))
def test_masking_is_stable(before: str, after: str) -> None:
    """Masking a masked string changes nothing, and no input makes it fail."""
    once = mask(f"{before} token=abc {after}")
    assert mask(once) == once
    assert "token=abc" not in once
