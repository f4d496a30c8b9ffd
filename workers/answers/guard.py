"""What is about to become visible, watched: held back until it is judged, ended where it is to end.

Once a text is shown it is never withdrawn. So a fault in what nobody has seen is a malformed answer, which falls back;
one in what follows is left out, and where an answer has to end on a question a written one takes its place.
"""

import html as references
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import jiter
from pydantic import JsonValue

from infra.telemetry import metrics
from schemas.completions import Malformed
from schemas.gate_policy import Hold

Check = Callable[[str], str | None]
"""Judges plain text that is about to be shown: a sentence, or what is left of one. Returns a short code of what is
wrong with it, of lower-case letters and underscores, or None. Called often, so it must be quick; it does no I/O."""

PROMISED: Final = "promised_"
"""How the codes of promises begin."""

_PIECE: Final = re.compile(r"<(?P<end>/?)(?P<name>[a-z0-9]+)[^>]*>|&[a-z0-9#]+;|[^<&]+", re.IGNORECASE)
_END_OF_SENTENCE: Final = re.compile(r"[.!?…。！؟？]+[\"'”’»)\]]*(?:\s+|(?<=[。！？])(?=\S))")
_QUESTION_MARK: Final = re.compile(r"[?？؟]")
_BREAKS: Final = frozenset({"p", "li", "ul", "ol", "h3", "h4", "pre", "blockquote", "br"})
_TRICKS: Final = re.compile(
    r"<\s*/?\s*(?:script|style|iframe|object|embed|form|input|button|img|svg|math|link|meta|base|template|textarea)\b"
    r"|\bon[a-z]{3,16}\s*=\s*[\"']|(?:javascript|vbscript)\s*:|data:(?:text|image|application)/|<!--|<\?|<!\["
    r"|[\u202a-\u202e\u2066-\u2069]",
    re.IGNORECASE,
)
"""In the raw text: what the sanitiser would take away, but nobody who means well writes."""


@dataclass(frozen=True, slots=True)
class Question:
    """How answers have to end, where that is on exactly one question."""

    written: Callable[[str], str]
    """Returns the written question of a dimension, as plain text."""
    otherwise: str
    """The dimension to ask about where the model named none that is allowed."""
    longest: int
    """Words of a whole answer."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one answer has to keep to."""

    agent: str
    hold: Hold = "decision"
    schema: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """Its first property is the decision, which must be one of the listed ones."""
    checks: tuple[Check, ...] = ()
    question: Question | None = None
    declined: str | None = None
    """What is said, as plain text, where an agent promised what it may not; nothing where a question is written."""
    last: bool = False
    """No other attempt may follow: a fault is mended even if nothing is shown yet, where it can be."""


class Guard:
    """Stands between the sanitiser and the visitor, for one attempt."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._raw = ""
        self._held = ""
        self._open: list[str] = []
        self._words = 0
        self._shown = False
        self._spaced = True
        self._rest = ""
        self.dimension: str | None = None
        """What the answer is about; the written question's where that took its place."""
        self.ended = False
        """Nothing more is to be shown: the answer is whole."""
        self.mended: str | None = None
        """The code of what was left out or put in its place."""

    def decide(self, fields: Mapping[str, str], raw: str) -> str:
        """Judge what came before the visible text; returns what is to be shown because of it, usually nothing.

        Args:
            fields: the text fields before the visible one.
            raw: the reply so far.

        Raises:
            Malformed: it is not the decision that was asked for.
        """
        properties = self._rules.schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            self.dimension = next(iter(fields.values()), None)
            return ""
        decision, shape = next(iter(properties.items()))
        self.dimension = fields.get(decision)
        listed = shape.get("enum") if isinstance(shape, dict) else None
        if _keys(raw) - properties.keys():
            return self._refuse("schema")
        if isinstance(listed, list) and self.dimension not in listed:
            code = "undecided" if self.dimension is None else "decision"
            self.dimension = None
            return self._refuse(code)
        return ""

    def feed(self, raw: str, html: str) -> str:
        """Return what may be shown now that `raw` came, of which `html` is what the sanitiser let through.

        Raises:
            Malformed: it must not be shown, and nothing was shown before.
        """
        if self.ended:
            self._rest += html
            return ""
        if self._rules.hold == "decision":
            return self._pass_on(html)
        self._raw += raw
        self._held += html
        return "" if self._rules.hold == "answer" else self._release()

    def finish(self, html: str) -> str:
        """End the answer; returns what is left to show, the closing question included where the model asked none.

        Raises:
            Malformed: as `feed`.
        """
        if self.ended:
            return ""
        unseen = not self._shown
        if self._rules.hold == "decision":
            shown = self._pass_on(html)
        else:
            self._held += html
            shown = self._release(whole=True)
        if self._rules.question is None or self.ended:
            return shown
        if unseen:
            self._shown = False  # nor is what is returned here, if it is refused
        return shown + self._refuse("no_question")

    def closing(self) -> str:
        """Return what ends a text that breaks off where it stands: end tags, and the question that is still owed."""
        if self.ended:
            return ""
        written = self._written("cut_off")
        if written is None or not self._shown:
            return self._closers()
        return self._mend("cut_off", written)

    def instead(self) -> str:
        """Return what is shown where the last attempt wrote nothing that could be: the written question, or nothing."""
        if self._shown or self.ended or self._rules.question is None or not self._rules.last:
            return ""
        return self._refuse("not_json")

    def conclude(self) -> str | None:
        """Return the code of what was left out of the answer or put in its place; call it once, at the end."""
        rest = _plain(self._rest).strip(" \n\"'”’».!")
        if self.mended is None and rest:
            self._note("stacked" if _QUESTION_MARK.search(rest) else "more_after")
        return self.mended

    # Releasing -----------------------------------------------

    def _pass_on(self, html: str) -> str:
        """Show at once, up to the question's end."""
        self._held += html
        end = _first_question(self._held) if self._rules.question is not None else None
        if end is None:
            shown, self._held = self._held, ""
            return self._show(shown)
        return self._end_at(end)

    def _release(self, *, whole: bool = False) -> str:
        """Return every sentence that is whole; at the end of the answer, `whole`, what is left of it too."""
        shown, before = "", list(self._open)
        try:
            while not self.ended and (end := _end_of_sentence(self._held) or (len(self._held) if whole else 0)):
                shown += self._judged(end)
        except Malformed:
            self._open = before  # what came before the fault in the same piece is not shown either
            raise
        return shown

    def _judged(self, end: int) -> str:
        """Judge what is held up to `end` and return it, or what is shown in its place."""
        question = self._rules.question
        mark = _first_question(self._held[:end]) if question is not None else None
        sentence = self._held[: mark or end]
        text = _plain(sentence)
        fault = self._fault(text)
        if fault is not None:
            self._held = ""
            return self._refuse(fault)
        self._words += len(text.split())
        if mark is not None:
            return self._end_at(mark)
        self._held, self._raw = self._held[end:], _tag_begun(self._raw)
        return self._show(sentence)

    def _fault(self, text: str) -> str | None:
        if _TRICKS.search(self._raw):
            return "markup"
        question = self._rules.question
        if question is not None and self._words + len(text.split()) > question.longest:
            return "too_long"
        found = (check(text) for check in self._rules.checks) if text.strip() else iter(())
        return next((code for code in found if code is not None), None)

    def _end_at(self, end: int) -> str:
        """Show what is held up to the end of its question, and end there."""
        shown, self._rest = self._held[:end], self._held[end:]
        self._held, self.ended = "", True
        html = self._show(shown)
        closers = self._closers()
        self._open.clear()
        return html + closers

    def _show(self, html: str) -> str:
        if html:
            self._shown = True
            self._spaced = html[-1].isspace() or html.endswith(">")
        if "<" in html:
            for tag in _PIECE.finditer(html):
                self._follow(tag)
        return html

    def _follow(self, tag: re.Match[str]) -> None:
        name = tag["name"]
        if name is None or name == "br":
            return
        if tag["end"]:
            self._open.pop()
        else:
            self._open.append(name)

    def _closers(self) -> str:
        return "".join(f"</{name}>" for name in reversed(self._open))

    # Faults --------------------------------------------------

    def _refuse(self, code: str) -> str:
        """Deal with a fault: fail unseen, else mend.

        Raises:
            Malformed: nothing was shown yet and another attempt may follow, or it cannot be mended.
        """
        metrics.GUARD_REFUSALS.labels(self._rules.agent, code).inc()
        unseen = not self._shown or self._rules.hold == "answer"
        written = self._written(code)
        if written is None or (unseen and not self._rules.last):
            raise Malformed(
                f"the answer may not be shown: {code}; look at the prompt and at what the model was tuned on"
            )
        return self._mend(code, written)

    def _written(self, code: str) -> str | None:
        """Return what is said in place of a fault: the written question, or that a promise is not ours to make."""
        question = self._rules.question
        if question is None:
            return self._rules.declined if code.startswith(PROMISED) else None
        return question.written(self.dimension or question.otherwise)

    def _mend(self, code: str, written: str) -> str:
        """End the answer with what we have written."""
        if self._rules.question is not None:
            self.dimension = self.dimension or self._rules.question.otherwise
        self._note(code)
        self.ended, self._shown = True, True
        asked = references.escape(written, quote=False)
        if self._open == ["p"]:
            self._open.clear()
            return f"{'' if self._spaced else ' '}{asked}</p>"
        closers = self._closers()
        self._open.clear()
        return f"{closers}<p>{asked}</p>"

    def _note(self, code: str) -> None:
        self.mended = code
        metrics.ANSWERS_MENDED.labels(self._rules.agent, code).inc()


def _end_of_sentence(html: str) -> int:
    """Return where the first whole sentence of `html` ends; 0 if none is whole.

    A sentence ends with its mark once white space follows, with a question mark, and with the element it is in.
    """
    begun = marked = False
    for piece in _PIECE.finditer(html):
        text = piece[0]
        if piece["name"] is not None:
            if begun and piece["name"].lower() in _BREAKS:
                return piece.end() if piece["end"] else piece.start()
            continue
        if marked and text[0].isspace():
            return piece.end() - len(text.lstrip())
        ends = [found.end() for found in (_END_OF_SENTENCE.search(text), _QUESTION_MARK.search(text)) if found]
        if ends:
            return piece.start() + min(ends)
        begun = begun or not text.isspace()
        marked = text[-1] in ".!…"
    return 0


def _first_question(html: str) -> int | None:
    """Return where the first question of `html` ends."""
    for piece in _PIECE.finditer(html):
        if piece["name"] is None and (found := _QUESTION_MARK.search(piece[0])):
            return piece.start() + found.end()
    return None


def _plain(html: str) -> str:
    return references.unescape(re.sub(r"</?(?:p|li|ul|ol|br|h3|h4|pre|blockquote)>|<[^>]*>", _space_for, html))


def _space_for(tag: re.Match[str]) -> str:
    return " " if tag[0].strip("</>") in _BREAKS else ""


def _tag_begun(raw: str) -> str:
    """Return the unfinished tag at the end of the raw text: it belongs to what follows."""
    at = raw.rfind("<")
    return raw[at:] if at > raw.rfind(">") else ""


def _keys(raw: str) -> set[str]:
    """Return the top-level keys of a JSON object that may still be arriving."""
    try:
        found: object = jiter.from_json(raw.encode(errors="replace"), partial_mode="trailing-strings")
    except ValueError:
        return set()
    return set(cast("Mapping[str, object]", found)) if isinstance(found, dict) else set()
