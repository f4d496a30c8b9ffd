"""The text of one string field of a streamed JSON object, as it arrives.

Parsing the whole reply again at each delta costs more with every token. The scanner instead remembers where
in the object it stands and reads each character once; inside the field a delta without quote or backslash is
handed on as it came. What was handed out is compared, at the end, with a full parse of the same text.
"""

import json
import re
from collections.abc import Callable
from typing import Final, Literal, cast

import jiter

MAX_DEPTH: Final = 100
MAX_NUMBER_CHARS: Final = 1_000
MAX_FENCE_CHARS: Final = 64

_STOP: Final = re.compile('["\\\\\ud800-\udfff]')
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_LEAD: Final = re.compile("[ \\t\\n\\r\ufeff]*")
_FENCE: Final = re.compile(r"`{1,2}|`{3,}[A-Za-z0-9_+-]*[ \t\n\r]*")
_RUN: Final = re.compile(  # what can be decoded without knowing what follows
    r"""(?:[^"\\]++|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}"""
    r"""|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+"""
)
_DECODE: Final = cast("Callable[[str], tuple[str, int]]", json.JSONDecoder(strict=False).raw_decode)
_LONE: Final = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_PAIR_BEGUN: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?")
_ESCAPE_BEGUN: Final = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")
_WORD: Final = re.compile(r"[-+.0-9A-Za-z]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_LITERALS: Final = ("true", "false", "null")

_Role = Literal["field", "key", "early", "skipped"]


class MalformedAnswer(ValueError):
    """The reply is not, and can no longer become, a JSON object with the wanted text field."""


class FieldScanner:
    """Hands out the decoded text of one top-level string field while the object is still arriving.

    A byte order mark, white space or the opening of a Markdown fence may come before the object, anything
    after it. Raw control characters inside strings are taken as they are. A surrogate without its partner
    becomes U+FFFD.
    """

    def __init__(self, field: str = "html_response") -> None:
        self.field: Final = field
        self.fields: dict[str, str] = {}
        """Top-level string fields that were complete before the wanted one began, by name."""
        self.started = False
        """The wanted field's opening quote was seen."""
        self.closed = False
        """The wanted field's closing quote was seen."""
        self.complete = False
        """The object's closing brace was seen."""
        self._step: Callable[[str, int], int] = self._before_object
        self._live = False  # inside the wanted field with nothing held back: the fast path
        self._held = ""  # the beginning of an escape or of a fence, at most MAX_FENCE_CHARS
        self._half = ""  # a raw high surrogate that waits for its partner
        self._raw: list[str] = []
        self._emitted: list[str] = []
        self._out: list[str] = []
        self._role: _Role = "skipped"
        self._then = self._step
        self._parts: list[str] = []
        self._key = ""
        self._nesting: list[str] = []
        self._fault: MalformedAnswer | None = None

    @property
    def held(self) -> int:
        """How many characters wait for the next delta; bounded whatever the length of the reply."""
        return len(self._held) + len(self._half)

    @property
    def raw(self) -> str:
        """The object's own text so far, without what surrounds it."""
        return "".join(self._raw)

    @property
    def text(self) -> str:
        """The wanted field's decoded text so far: everything `feed` has returned."""
        return "".join(self._emitted)

    def feed(self, delta: str) -> str:
        """Return the field's text that `delta` completes, often empty.

        Raises MalformedAnswer as soon as the reply cannot become the wanted object; text that stands before
        the fault in the same delta is returned first, and the next call raises.
        """
        if self._live and not _STOP.search(delta):
            self._raw.append(delta)
            self._emitted.append(delta)
            return delta
        if self._fault is not None:
            raise self._fault
        return self._read(self._mend(delta))

    def finish(self) -> dict[str, object]:
        """End the stream and return the whole object, parsed. Raises MalformedAnswer if it is cut off."""
        if self._fault is not None:
            raise self._fault
        if not self.complete:
            raise self._cut_off()
        whole = _parse_whole(self.raw)
        if whole.get(self.field) != self.text:
            raise MalformedAnswer(
                f"The streamed text of {self.field!r} differs from a full parse of the same reply; "
                "report this turn as a defect of the scanner."
            )
        return whole

    @property
    def _inside(self) -> bool:
        return self.started and not self.closed

    def _read(self, delta: str) -> str:
        if self._nesting:
            self._raw.append(delta)
        text = self._held + delta if self._held else delta
        self._held = ""
        at, end = 0, len(text)
        try:
            while at < end:
                at = self._step(text, at)
        except MalformedAnswer as fault:
            self._fault = fault
            if not self._out:
                raise
        self._live = self._inside and not (self._held or self._half or self._fault)
        if not self._out:
            return ""
        fresh = "".join(self._out)
        self._out.clear()
        self._emitted.append(fresh)
        return fresh

    def _mend(self, delta: str) -> str:
        """Join surrogate halves that an upstream left raw, and replace those that have no other half."""
        if not self._half and (delta.isascii() or not _SURROGATE.search(delta)):
            return delta
        text = self._half + delta
        self._half = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    # Where the scanner stands is the method it calls next: from text and a position to the next position.

    def _before_object(self, text: str, at: int) -> int:
        at = _end_of(_LEAD, text, at)
        brace = text.find("{", at)
        lead = text[at:] if brace < 0 else text[at:brace]
        if lead and (len(lead) > MAX_FENCE_CHARS or not _FENCE.fullmatch(lead)):
            raise self._unexpected(text[at], "the opening brace")
        if brace < 0:
            self._held = lead
            return len(text)
        if lead.strip("`") == "" and 0 < len(lead) < 3:
            raise self._unexpected("`", "the opening brace")
        self._raw.append(text[brace:])
        self._nesting.append("{")
        self._step = self._key_or_end
        return brace + 1

    def _key_or_end(self, text: str, at: int) -> int:
        at = _end_of(_SPACE, text, at)
        if text[at : at + 1] == "}":
            return self._close(text, at)
        return self._key_only(text, at)

    def _key_only(self, text: str, at: int) -> int:
        at = _end_of(_SPACE, text, at)
        if at == len(text):
            return at
        if text[at] != '"':
            raise self._unexpected(text[at], "a key")
        return self._open_string("key" if len(self._nesting) == 1 else "skipped", at, then=self._colon)

    def _colon(self, text: str, at: int) -> int:
        at = _end_of(_SPACE, text, at)
        if at == len(text):
            return at
        if text[at] != ":":
            raise self._unexpected(text[at], "a colon")
        self._step = self._value
        return at + 1

    def _value_or_end(self, text: str, at: int) -> int:
        at = _end_of(_SPACE, text, at)
        if text[at : at + 1] == "]":
            return self._close(text, at)
        return self._value(text, at)

    def _value(self, text: str, at: int) -> int:
        at = _end_of(_SPACE, text, at)
        if at == len(text):
            return at
        char = text[at]
        wanted = self._key == self.field  # only top-level keys are kept, and nothing nests below this one
        if char == '"':
            return self._open_string(self._value_role(wanted), at, then=self._next)
        if wanted:
            raise self._unexpected(char, f"the text of {self.field!r}")
        if char in "{[":
            return self._open(char, at)
        if char in "-0123456789tfn":
            self._parts.clear()
            self._step = self._word
            return at
        raise self._unexpected(char, "a value")

    def _value_role(self, wanted: bool) -> _Role:
        if wanted:
            self.started = True
            return "field"
        return "early" if len(self._nesting) == 1 and not self.started else "skipped"

    def _word(self, text: str, at: int) -> int:
        end = _end_of(_WORD, text, at)
        self._parts.append(text[at:end])
        word = "".join(self._parts)
        self._parts[:] = [word]
        if word[0] in "tfn":
            valid = word in _LITERALS if end < len(text) else any(name.startswith(word) for name in _LITERALS)
        else:
            valid = len(word) <= MAX_NUMBER_CHARS and (end == len(text) or bool(_NUMBER.fullmatch(word)))
        if not valid:
            raise self._unexpected(word[0], "a number, true, false or null")
        if end < len(text):
            self._step = self._next
        return end

    def _next(self, text: str, at: int) -> int:
        at = _end_of(_SPACE, text, at)
        if at == len(text):
            return at
        if text[at] != ",":
            return self._close(text, at)
        self._step = self._key_only if self._nesting[-1] == "{" else self._value
        return at + 1

    def _open(self, char: str, at: int) -> int:
        if len(self._nesting) == MAX_DEPTH:
            raise MalformedAnswer(
                f"The reply nests deeper than {MAX_DEPTH} levels; check the response format the model was given."
            )
        self._nesting.append(char)
        self._step = self._key_or_end if char == "{" else self._value_or_end
        return at + 1

    def _close(self, text: str, at: int) -> int:
        closer = "}" if self._nesting[-1] == "{" else "]"
        if text[at] != closer:
            raise self._unexpected(text[at], "a comma or the closing bracket")
        self._nesting.pop()
        self._step = self._next
        if self._nesting:
            return at + 1
        if not self.closed:
            raise MalformedAnswer(
                f"The reply is a JSON object without the text field {self.field!r}; "
                "check the response format the model was given."
            )
        self.complete = True
        self._step = self._after_object
        if at + 1 < len(text):
            self._raw[-1] = self._raw[-1][: at + 1 - len(text)]
        return at + 1

    def _after_object(self, text: str, at: int) -> int:
        return max(at, len(text))

    def _open_string(self, role: _Role, at: int, *, then: Callable[[str, int], int]) -> int:
        self._role, self._then = role, then
        self._parts.clear()
        self._step = self._in_string
        return at + 1

    def _in_string(self, text: str, at: int) -> int:
        end = _end_of(_RUN, text, at)
        if end > at:
            run = text[at:end]
            self._keep(_DECODE(f'"{run}"')[0] if "\\" in run else run)
        if end == len(text):
            return end
        if text[end] == '"':
            self._close_string()
            return end + 1
        return self._odd_escape(text, end)

    def _odd_escape(self, text: str, at: int) -> int:
        """Hold an escape, or the first of a pair, until the rest is there; replace a half that stays alone."""
        if _ESCAPE_BEGUN.fullmatch(text, at) or _PAIR_BEGUN.fullmatch(text, at):
            self._held = text[at:]
            return len(text)
        lone = _LONE.match(text, at)
        if lone is None:
            raise self._unexpected(text[at], "a valid escape")
        self._keep("\ufffd")
        return lone.end()

    def _keep(self, text: str) -> None:
        if self._role == "field":
            self._out.append(text)
        elif self._role != "skipped":
            self._parts.append(text)

    def _close_string(self) -> None:
        self._step = self._then
        if self._role == "field":
            self.closed = True
        elif self._role == "early":
            self.fields[self._key] = "".join(self._parts)
        elif self._role == "key":
            self._key = "".join(self._parts)
            if self.started and self._key == self.field:
                raise MalformedAnswer(
                    f"The reply has the field {self.field!r} twice; check the response format the model was given."
                )

    def _unexpected(self, char: str, wanted: str) -> MalformedAnswer:
        return MalformedAnswer(
            f"The reply is not a JSON object with the text field {self.field!r}: {_kind(char)} stands where "
            f"{wanted} should; check the response format the model was given."
        )

    def _cut_off(self) -> MalformedAnswer:
        if self._step == self._before_object:
            where = "before a JSON object began"
        elif self.closed:
            where = f"after the field {self.field!r}, before the object was closed"
        elif self.started:
            where = f"inside the field {self.field!r}"
        else:
            where = f"before the field {self.field!r} began"
        return MalformedAnswer(f"The reply ended {where}; check the model's output limit and its stop sequences.")


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return where a pattern that also matches nothing stops matching."""
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _kind(char: str) -> str:
    if char.isalpha():
        return "a letter"
    if char.isdigit():
        return "a digit"
    return {'"': "a string", "{": "an object", "[": "an array", "\\": "a backslash"}.get(char, "another character")


def _parse_whole(raw: str) -> dict[str, object]:
    try:
        return cast("dict[str, object]", jiter.from_json(raw.encode()))
    except ValueError:
        pass  # jiter refuses lone surrogates and raw control characters, which the scanner lets pass
    try:
        parsed = cast("object", json.loads(raw, strict=False))
    except ValueError as fault:
        raise MalformedAnswer(
            "The streamed reply is not valid JSON as a whole; report this turn as a defect of the scanner."
        ) from fault
    return cast("dict[str, object]", _without_lone_surrogates(parsed))


def _without_lone_surrogates(value: object) -> object:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        pairs = cast("dict[str, object]", value).items()
        return {_SURROGATE.sub("\ufffd", key): _without_lone_surrogates(item) for key, item in pairs}
    return value
