"""Names and streets, only where a cue makes it safe: most names in a text are not found."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

from infra.redaction.rules import any_of, rules
from infra.redaction.spans import Kind, Span

_WORD: Final = re.compile(
    r"[ \t\u00a0]{0,2}\n?[ \t\u00a0]{0,2}"
    r"(?P<word>[^\W\d_](?:[^\W\d_]|['’-](?=[^\W\d_])){0,40})(?P<dot>\.(?=\s[^\W\d_]))?"
)
_WORDS: Final = re.compile(r"\w+")
_MOST_WORDS: Final = 4
_TITLES: Final = frozenset(
    {
        "dr",
        "prof",
        "mr",
        "mrs",
        "ms",
        "herr",
        "frau",
        "mme",
        "monsieur",
        "madame",
        "señor",
        "señora",
        "sr",
        "sra",
        "sig",
        "signor",
        "signora",
    }
)

_CAP: Final = r"[A-ZÀ-ÖØ-ÞŁŚŻ][\w'’.-]*"
_ENGLISH: Final = (
    rf"\d{{1,5}}[A-Za-z]?(?: {_CAP}){{1,3}} (?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|"
    r"Square|Terrace|Way|Place|Pl|Close|Crescent)\b\.?(?:,? (?:Apt|Suite|Unit|Flat|#)\.? ?\w{1,5})?"
)
_GERMAN: Final = (
    r"(?:[A-ZÄÖÜ][\wäöüß-]*(?:straße|strasse|str\.|gasse|allee)|"
    rf"(?:{_CAP}[ -]){{1,3}}(?:Straße|Strasse|Str\.|Allee|Gasse))"
    r" \d{1,4} ?(?:[a-h]\b)?"
)
_GERMAN_WITH_CODE: Final = (
    r"[A-ZÄÖÜ][\wäöüß-]*(?:weg|platz|ring|damm|ufer|berg|hof) \d{1,4} ?[a-h]?,? (?=\d{5} [A-ZÄÖÜ])"
)
_FRENCH: Final = (
    r"\d{1,4}(?: ?(?:bis|ter))?,? (?:rue|avenue|boulevard|bd|chemin|impasse|allée|quai)"
    rf"(?:(?: (?:de|des|du|la|le|les)){{0,2}} (?:[dl]['’])?{_CAP}){{1,3}}"
)
_SPANISH: Final = (
    r"(?:[Cc]alle|C/|[Aa]venida|[Aa]vda\.?|[Pp]aseo|[Pp]laza) ?(?:(?:de|del|la|las|los|el) |"
    rf"{_CAP} ?){{1,6}},? ?(?:n[º°.]{{0,2}} ?)?\d{{1,4}}\b"
)
_ITALIAN: Final = (
    r"(?:[Vv]ia|[Vv]iale|[Pp]iazza|[Cc]orso|[Ll]argo|[Vv]icolo) (?:(?:di|del|della|dei|degli|delle|da) |"
    rf"{_CAP} ?){{1,5}},? ?(?:n[º°.]{{0,2}} ?)?\d{{1,4}}\b"
)
_CITY: Final = rf"(?:,? ?(?:[A-Z]{{1,2}}-)?\d{{4,5}} {_CAP}(?:[ -]{_CAP})?)?"
_STREET: Final = re.compile(
    rf"(?<![\w-])(?:{_ENGLISH}|{_GERMAN}|{_GERMAN_WITH_CODE}|{_FRENCH}|{_SPANISH}|{_ITALIAN}){_CITY}"
)
_NUMBER_AND_WORD: Final = re.compile(
    r"(?<![\d.,:])\d{1,5}[A-Za-z]?,? [^\W\d_]|[^\W\d_]\.?,? (?:n[º°.]{0,2} ?)?\d{1,4}(?![\d.,:]\d)"
)


@cache
def _cues() -> re.Pattern[str]:
    cues = rules().name_cues
    return re.compile(rf"(?<!\w)(?:(?P<strong>{any_of(cues.strong)})|(?:{any_of(cues.weak)}))(?!\w)", re.IGNORECASE)


@cache
def _cue_words() -> frozenset[str]:
    """Return the longest word of each cue: a text with none of them has no cue."""
    cues = rules().name_cues
    return frozenset(max(_WORDS.findall(cue), key=len) for cue in (*cues.strong, *cues.weak))


def names(text: str) -> Iterator[Span]:
    """Yield what is read as a name after `my name is`, `Dear`, `Frau` and the like."""
    if _cue_words().isdisjoint(_WORDS.findall(text.lower())):
        return
    for cue in _cues().finditer(text):
        found = _name_at(text, cue.end(), strong=cue["strong"] is not None)
        if found is not None:
            yield found


def streets(text: str) -> Iterator[Span]:
    """Yield streets with a number, as English, German, French, Spanish and Italian write them, with code and city."""
    low = text.lower()
    if not any(word in low for word in rules().street_words) or _NUMBER_AND_WORD.search(text) is None:
        return
    for match in _STREET.finditer(text):
        yield Span(match.start(), match.start() + len(match[0].rstrip(" ,.")), Kind.ADDRESS)


def _name_at(text: str, at: int, *, strong: bool) -> Span | None:
    start = end = -1
    known = rules()
    for count in range(_MOST_WORDS):
        match = _WORD.match(text, at)
        if match is None or (count and "\n" in match[0]):
            break
        word, low = match["word"], match["word"].lower()
        if low in _TITLES:
            at = match.end()
            continue
        if low in known.no_names:
            break
        if not word[0].isupper() and low not in known.particles:
            if strong and start < 0:
                return Span(*match.span("word"), Kind.NAME)
            break
        if word[0].isupper():
            start, end = match.start("word") if start < 0 else start, match.end("word")
        elif start < 0:
            start = match.start("word")
        if match["dot"] and len(word) > 1:
            break
        at = match.end()
    return Span(start, end, Kind.NAME) if end > 0 else None
