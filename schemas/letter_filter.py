"""Which dead letters an operator means: `agent=discovery and reason=queue_deadline and state=unanswered`.

A filter compares fields with values, joined by `and`, `or`, `not` and parentheses. Values stand bare or in quotes.
Fields with a closed list take only its values, so that a typing error is a sentence and not an empty list. A moment is
RFC 3339 or an age: `created < 2h` means before two hours ago.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal

from schemas.agents import ANSWERING
from schemas.dead_letters import DeadLetterReason, DeadLetterState
from schemas.turns import TurnState

MAX_CHARS: Final = 2_000
MAX_COMPARISONS: Final = 50
MAX_DEPTH: Final = 20

Operator = Literal["=", "!=", "<", ">", "<=", ">=", "in"]


class FilterError(ValueError):
    """The text is no filter. The sentence says what to write instead; it repeats nothing of the values."""


class Field(StrEnum):
    """What can be asked of a dead letter."""

    AGENT = "agent"
    REASON = "reason"
    STATE = "state"
    STAGE = "stage"
    CONVERSATION = "conversation"
    CHANNEL = "channel"
    MODEL = "model"
    TURN = "turn"
    CREATED = "created"
    TIMES = "times"
    REPLAYS = "replays"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value, or with `in` against several."""

    field: Field
    operator: Operator
    values: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as it would be written."""
        if self.operator == "in":
            return f"{self.field} in ({', '.join(map(_written, self.values))})"
        return f"{self.field} {self.operator} {_written(self.values[0])}"


@dataclass(frozen=True, slots=True)
class Not:
    """What the inner filter does not choose."""

    inner: "LetterFilter"

    def __str__(self) -> str:
        """Return it as it would be written."""
        return f"not ({self.inner})" if isinstance(self.inner, Joined) else f"not {self.inner}"


@dataclass(frozen=True, slots=True)
class Joined:
    """Several filters of which all (`and`) or at least one (`or`) must choose."""

    word: Literal["and", "or"]
    parts: tuple["LetterFilter", ...]

    def __str__(self) -> str:
        """Return it as it would be written."""
        # `and` binds tighter, so only an `or` within it needs parentheses.
        loose = self.word == "or"
        return f" {self.word} ".join(
            str(part) if loose or not isinstance(part, Joined) else f"({part})" for part in self.parts
        )


LetterFilter = Comparison | Not | Joined

_AGE: Final = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LONGEST_AGE: Final = 20 * 365 * 86_400
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WORDS: Final = frozenset({"and", "or", "not", "in"})
_ORDERED: Final = frozenset({Field.CREATED, Field.TIMES, Field.REPLAYS})

_FIELDS: Final = {field.value: field for field in Field}
_CLOSED: Final[dict[Field, tuple[str, ...]]] = {
    Field.AGENT: tuple(agent.value for agent in ANSWERING),
    Field.REASON: tuple(reason.value for reason in DeadLetterReason),
    Field.STATE: tuple(state.value for state in DeadLetterState),
    Field.STAGE: ("decode", *(state.value for state in TurnState)),
}

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<mark>!=|<=|>=|[=<>(),])|"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'"""
    r"""|(?P<bare>[^\s=<>!(),"'\\]+))""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Literal["mark", "quoted", "bare", "end"]
    text: str

    def is_word(self, word: str) -> bool:
        return self.kind == "bare" and self.text.lower() == word

    def is_mark(self, mark: str) -> bool:
        return self.kind == "mark" and self.text == mark


def parse_filter(text: str) -> LetterFilter:
    """Return the filter that `text` says.

    Raises:
        FilterError: it says none; the sentence says what to write.
    """
    if not text.strip():
        raise FilterError(
            "The filter is empty, which would mean every dead letter. Write for example: state=unanswered"
        )
    if len(text) > MAX_CHARS:
        raise FilterError(f"The filter is longer than {MAX_CHARS} characters; write a shorter one.")
    return _Parser(_tokens(text)).whole()


def moment(value: str) -> datetime | float:
    """Return a point in time, or for an age its seconds.

    Raises:
        FilterError: it is neither.
    """
    if age := _AGE.fullmatch(value):
        seconds = int(age[1]) * _SECONDS[age[2]]
        if seconds <= _LONGEST_AGE:
            return float(seconds)
    try:
        found = datetime.fromisoformat(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise FilterError(
            "'created' takes a moment such as 2026-01-31T09:00:00Z, or an age such as 30m, 2h or 7d (20 years at most)."
        ) from None


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._comparisons = 0
        self._depth = 0

    def whole(self) -> LetterFilter:
        found = self._joined("or", lambda: self._joined("and", self._single))
        if self._next.kind != "end":
            raise FilterError("Something follows the filter's end; join comparisons with 'and' or 'or'.")
        return found

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        if token.kind != "end":
            self._at += 1
        return token

    def _joined(self, word: Literal["and", "or"], part: Callable[[], LetterFilter]) -> LetterFilter:
        parts = [part()]
        while self._next.is_word(word):
            self._take()
            parts.append(part())
        if len(parts) == 1:
            return parts[0]
        # (a and b) and c is a and b and c: one way to write it, one way to read it again.
        flat: list[LetterFilter] = []
        for one in parts:
            flat += one.parts if isinstance(one, Joined) and one.word == word else (one,)
        return Joined(word, tuple(flat))

    def _single(self) -> LetterFilter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FilterError(f"The filter is nested deeper than {MAX_DEPTH}; write it flatter.")
        try:
            if self._next.is_word("not"):
                self._take()
                return Not(self._single())
            if self._next.is_mark("("):
                self._take()
                found = self._joined("or", lambda: self._joined("and", self._single))
                self._expect(")", "A parenthesis is open; close it with ')'.")
                return found
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Comparison:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise FilterError(f"The filter has more than {MAX_COMPARISONS} comparisons; use 'in (a, b)'.")
        field, operator = self._field(), self._operator()
        if operator in ("<", ">", "<=", ">=") and field not in _ORDERED:
            raise FilterError(f"'{field}' has no order; compare it with =, != or 'in (a, b)'.")
        if field is Field.CREATED and operator not in ("<", ">", "<=", ">="):
            raise FilterError("Compare 'created' with <, >, <= or >=; created < 2h means before two hours ago.")
        values = self._list() if operator == "in" else (self._value(),)
        return Comparison(field, operator, tuple(_checked(field, value) for value in values))

    def _field(self) -> Field:
        token = self._take()
        found = _FIELDS.get(token.text.lower()) if token.kind == "bare" else None
        if found is not None:
            return found
        raise FilterError(f"A comparison begins with one of: {', '.join(Field)}.")

    def _operator(self) -> Operator:
        token = self._take()
        if token.is_word("in"):
            return "in"
        if token.kind == "mark":
            for operator in ("=", "!=", "<", ">", "<=", ">="):
                if token.text == operator:
                    return operator
        raise FilterError("After a field comes =, !=, <, >, <=, >= or 'in (a, b)'.")

    def _list(self) -> tuple[str, ...]:
        self._expect("(", "After 'in' comes a list in parentheses: reason in (queue_deadline, worker_lost).")
        values = [self._value()]
        while self._next.is_mark(","):
            self._take()
            values.append(self._value())
        self._expect(")", "Close the list after 'in' with ')'; its values are separated by commas.")
        return tuple(dict.fromkeys(values))

    def _value(self) -> str:
        token = self._take()
        if token.kind == "quoted" or (token.kind == "bare" and token.text.lower() not in _WORDS):
            return token.text
        raise FilterError("A value is missing; put one with spaces, signs or a word of the language in quotes.")

    def _expect(self, mark: str, sentence: str) -> None:
        if not self._take().is_mark(mark):
            raise FilterError(sentence)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise FilterError("A quote is open, or a sign stands where none can; put values with signs in quotes.")
        at = found.end()
        quoted = found["double"] if found["double"] is not None else found["single"]
        if quoted is not None:
            tokens.append(_Token("quoted", re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)))
        elif found["mark"]:
            tokens.append(_Token("mark", found["mark"]))
        else:
            tokens.append(_Token("bare", found["bare"]))
    return [*tokens, _Token("end", "")]


def _checked(field: Field, value: str) -> str:
    """Return the value as it is compared."""
    closed = _CLOSED.get(field)
    if closed is not None:
        if value not in closed:
            raise FilterError(f"'{field}' is one of: {', '.join(closed)}.")
    elif field is Field.CREATED:
        moment(value)
    elif field in _ORDERED:
        if not re.fullmatch(r"[0-9]{1,6}", value):
            raise FilterError(f"'{field}' is compared with a number from 0 to 999999.")
    elif field is Field.TURN:
        if not _UUID.fullmatch(value.lower()):
            raise FilterError("'turn' is compared with a turn's id, 36 characters with hyphens.")
        return value.lower()
    elif not value or not value.isprintable() or len(value) > 128:
        raise FilterError(f"'{field}' is compared with 1 to 128 visible characters.")
    return value


def _written(value: str) -> str:
    bare = _TOKEN.fullmatch(value)
    if bare is not None and bare["bare"] == value and value.lower() not in _WORDS:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
