"""What must never appear in a log line or a span: visitors' words, answers, secrets.

Three nets. By key: a value under a telling name is replaced, whatever it is. By pattern: secrets and quoted
message text inside any other string are masked, because exceptions and foreign libraries build such strings.
By kind: of personal data that `infra/redaction` finds, a placeholder stays.
An object of a type not known here is shown as its type's name: its `repr` may hold a message.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import PurePath
from typing import Final, cast
from uuid import UUID

from infra.redaction import secrets
from infra.redaction.redactor import Redactor
from infra.redaction.spans import Kind
from schemas.guardrail_policy import RedactionPolicy

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

_KEY_OF_SECRET: Final = re.compile(rf"(?:^|_){secrets.ENDINGS}$")

_SCALARS: Final = (bool, int, float, type(None))
_PLAIN: Final = (UUID, date, datetime, timedelta, PurePath)

_LISTS: Final = (list, tuple, set, frozenset)

_WORD_NAMES: Final = "|".join(sorted(_WORDS - {"message"}, key=len, reverse=True))
"""`message` is left out of strings: there it is a server's error message, which an operator needs."""

_QUOTES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # What libraries append to their messages: pydantic, SQLAlchemy, PostgreSQL.
    (re.compile(r"input_value=.*?(?=, input_type=|$)", re.DOTALL), f"input_value={REDACTED}"),
    (re.compile(r"\[parameters: .*?(?:\](?=\n|$)|\Z)", re.DOTALL), f"[parameters: {REDACTED}]"),
    (
        re.compile(r"(invalid input for query argument \$\d+(?: in element #\d+[^:]*)?: ).*", re.DOTALL),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(invalid input (?:syntax|value) for [\w ]+: )[^\n]+"), rf"\1{REDACTED}"),
    (re.compile(r"\b(DETAIL:\s+)[^\n]+"), rf"\1{REDACTED}"),
    # name=value, name: value and "name": "value", quoted.
    (
        re.compile(rf"""(\b(?:{_WORD_NAMES})["']?\s*[:=]\s*b?){secrets.QUOTED}""", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
)

_IDENTIFIER: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}|(?=\d*[a-f])[0-9a-f]{16}|"
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|\+00:00)?|"
    r"(?!hf_|npm_|fl_|gh|sk_|rk_)[a-z]{1,16}(?:[._][a-z]{1,16}){0,4}"
)
"""What every line has: identifiers, trace and span, a time, a word. Sixteen digits may be a card."""

_in_force = Redactor(without=(Kind.SECRET, Kind.PRIVATE_IP))


def put_in_force(policy: RedactionPolicy) -> None:
    """Let this process's lines and spans be redacted by an installation's policy, from now on.

    Secrets are found by stricter patterns here than in what people write; addresses inside a house stay, for
    operators look for them.
    """
    global _in_force  # noqa: PLW0603 - logs are of the process, and so is what may stand in them
    _in_force = Redactor(policy=policy, without=(Kind.SECRET, Kind.PRIVATE_IP))


def mask(text: str) -> str:
    """Return `text` without secrets, quoted message text and personal data, cut to a length a log line can carry."""
    if len(text) > _MAX_STRING:
        text = text[:_MAX_STRING] + f"… [{len(text) - _MAX_STRING} characters more]"
    if not _in_force.has_own and _IDENTIFIER.fullmatch(text) is not None:
        return text
    if secrets.suspect(text):
        text = _without_secrets(text)
    return _in_force.clean(text)


def _without_secrets(text: str) -> str:
    for pattern in (secrets.SCHEME, *secrets.PATTERNS):
        text = pattern.sub(_hidden, text)
    for pattern, replacement in _QUOTES:
        text = pattern.sub(replacement, text)
    for pattern in (secrets.NAMED, secrets.TOLD):
        text = pattern.sub(_hidden, text)
    return text


def _hidden(match: re.Match[str]) -> str:
    """Return a match with its secret replaced, and what stands around that as it is."""
    if "secret" not in match.re.groupindex:
        return REDACTED
    before, after = match.start("secret") - match.start(), match.end("secret") - match.start()
    return f"{match[0][:before]}{REDACTED}{match[0][after:]}"


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
