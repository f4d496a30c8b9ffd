"""What must never appear in a log line or a span: visitors' words, answers, secrets.

Two nets. By key: a value under a telling name is replaced, whatever it is. By pattern: secrets and quoted
message text inside any other string are masked, because exceptions and foreign libraries build such strings.
An object of a type not known here is shown as its type's name: its `repr` may hold a message.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import PurePath
from typing import Final, cast
from uuid import UUID

REDACTED: Final = "[redacted]"

_MAX_DEPTH: Final = 6
_MAX_STRING: Final = 16_000

_WORDS: Final = frozenset(
    {
        "answer",
        "bounded_reply",
        "body",
        "closing",
        "completion",
        "content",
        "data",
        "delta",
        "history",
        "html",
        "html_response",
        "input",
        "input_text",
        "input_value",
        "message",
        "messages",
        "output",
        "output_text",
        "params",
        "parameters",
        "payload",
        "prompt",
        "query",
        "reply",
        "text",
    }
)
"""Keys whose value may be somebody's words."""

_ENDINGS: Final = (
    r"(?:api_?key|authorization|cookie|credentials?|pass(?:words?|wd|phrase)|pepper|secrets?|signature|token)"
)
_KEY_OF_SECRET: Final = re.compile(rf"(?:^|_){_ENDINGS}$")

_SCALARS: Final = (bool, int, float, type(None))
_PLAIN: Final = (UUID, date, datetime, timedelta, PurePath)

_LISTS: Final = (list, tuple, set, frozenset)

_QUOTED: Final = r"""(?:"(?:\\.|[^"\\])*(?:"|$)|'(?:\\.|[^'\\])*(?:'|$))"""
_WORD_NAMES: Final = "|".join(sorted(_WORDS - {"message"}, key=len, reverse=True))
"""`message` is left out of strings: there it is a server's error message, which an operator needs."""

_SUSPECT: Final = re.compile(r"[=:]|bearer|basic|fl_|sk-|xox|hf_|eyj", re.IGNORECASE)
"""What every pattern below needs; most strings have none of it and are passed on as they are."""

_PATTERNS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # Scheme and credentials of an authorization header, in whatever sentence it stands.
    (re.compile(r"\b(Bearer|Basic)\s+[^\s\"',;]+", re.IGNORECASE), rf"\1 {REDACTED}"),
    # Our own keys: the public part stays, so that a key can be found and revoked.
    (re.compile(r"\b(fl_[A-Za-z0-9]+)_[A-Za-z0-9_\-]{6,}"), rf"\1_{REDACTED}"),
    # Keys of model servers, Slack, Hugging Face, and signed tokens.
    (
        re.compile(r"\b(?:sk-[\w\-]{8,}|xox[a-z]-[\w\-]{8,}|hf_\w{8,}|eyJ[\w\-]+\.[\w\-]+\.[\w\-]*)"),
        REDACTED,
    ),
    # The password of a URL.
    (re.compile(r"(\b[a-z][a-z0-9+.\-]*://[^\s:/@]*):[^\s/]+@", re.IGNORECASE), rf"\1:{REDACTED}@"),
    # What libraries append to their messages: pydantic, SQLAlchemy, PostgreSQL.
    (re.compile(r"input_value=.*?(?=, input_type=|$)", re.DOTALL), f"input_value={REDACTED}"),
    (re.compile(r"\[parameters: .*?(?:\](?=\n|$)|\Z)", re.DOTALL), f"[parameters: {REDACTED}]"),
    (
        re.compile(r"(invalid input for query argument \$\d+(?: in element #\d+[^:]*)?: ).*", re.DOTALL),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(invalid input (?:syntax|value) for [\w ]+: )[^\n]+"), rf"\1{REDACTED}"),
    (re.compile(r"\b(DETAIL:\s+)[^\n]+"), rf"\1{REDACTED}"),
    # name=value, name: value and "name": "value", quoted for words, bare as well for secrets.
    (
        re.compile(rf"""(\b(?:{_WORD_NAMES})["']?\s*[:=]\s*b?){_QUOTED}""", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    (
        re.compile(
            rf"""((?:\b|_){_ENDINGS.replace("_?", "[_-]?")}["']?\s*[:=]\s*b?)"""
            rf"""(?!(?:Bearer|Basic)\s|\[redacted)(?:{_QUOTED}|[^\s,;&"')\]}}]+)""",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
)


def mask(text: str) -> str:
    """Return `text` with secrets and quoted message text masked, cut to a length a log line can carry."""
    if len(text) > _MAX_STRING:
        text = text[:_MAX_STRING] + f"… [{len(text) - _MAX_STRING} characters more]"
    if _SUSPECT.search(text) is None:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_telling(key: str) -> bool:
    """Tell whether a value under `key` is replaced unseen."""
    name = _plain_key(key)
    return name in _WORDS or _KEY_OF_SECRET.search(name) is not None


def redact(value: object, depth: int = 0) -> object:
    """Return `value` as plain data that is safe to show."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, _PLAIN):
        return mask(str(value))
    if isinstance(value, BaseException):
        return mask(f"{type(value).__name__}: {value}")
    if isinstance(value, type):
        return value.__name__
    return _redact_inside(value, depth)


def redact_item(key: str, value: object, depth: int = 0) -> object:
    """Return what may be shown of `value` under `key`."""
    if is_telling(key) and not _is_measure(key, value):
        return REDACTED
    return redact(value, depth)


def _is_measure(key: str, value: object) -> bool:
    """Tell a number under a secret's name, such as `first_token=0.4`, from a secret; absence is no secret either."""
    return value is None or (isinstance(value, _SCALARS) and _plain_key(key) not in _WORDS)


def _plain_key(key: str) -> str:
    return key.lower().replace("-", "_").rpartition(".")[2]


def _redact_inside(value: object, depth: int) -> object:
    if depth >= _MAX_DEPTH:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {mask(str(key)): redact_item(str(key), inner, depth + 1) for key, inner in items}
    if isinstance(value, _LISTS):
        return [redact(inner, depth + 1) for inner in cast("Sequence[object]", value)]
    return f"<{type(value).__name__}>"
