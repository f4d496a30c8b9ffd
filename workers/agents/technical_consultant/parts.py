"""A question taken apart: its clauses, and within them the things that are named beside each other."""

import re
from dataclasses import dataclass
from typing import Final

_AND: Final = re.compile(
    r"(?:and|or|vs|versus|und|oder|sowie|et|ou|y|o|e|ed|u|en|of|i|oraz|lub|og|eller|och|samt|[&/,])\Z", re.IGNORECASE
)
_QUESTION: Final = (
    r"how|what|which|where|when|why|who|can|could|do|does|did|is|are|will|would|should|must|may|"
    r"wie|was|welche\w*|wo|wann|warum|kann|können|gibt|ist|sind|muss|"
    r"comment|quel\w*|où|quand|pourquoi|est-ce|peut|peut-on|"
    r"cómo|qué|cuál\w*|dónde|cuándo|puede\w*|"
    r"come|quale|quali|dove|quando|perché|può|posso|si può|"
    r"como|qual|quais|onde|pode\w*|hoe|wat|welke|waar|kan|kunnen|jak|czy|jaki\w*|gdzie|kiedy"
)
_CLAUSE: Final = re.compile(
    rf"(?<=[?!;])\s+|(?<=[^\W\d_]\.)\s+|\n+|[,;]?\s+(?:and|or|und|oder|et|ou|y|o|e|en|of|i|oraz|lub)\s+(?:also\s+)?(?=(?:{_QUESTION})\b)",
    re.IGNORECASE,
)
_TOKEN: Final = re.compile(r"`[^`\n]+`|\"[^\"\n]+\"|“[^”\n]+”|„[^“\n]+“|«[^»\n]+»|\w[\w.+#-]*\w|\w|[,&/]")
_STARTS: Final = re.compile(rf"(?:{_QUESTION}|the|your|our|my|we|i|it|if|please|and|hi|hello)\Z", re.IGNORECASE)
_QUOTES: Final = '`"“„«'
_LONGEST_NAME: Final = 4
"""Words of one name."""


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int


def parts(text: str, *, most: int) -> tuple[str, ...]:
    """Return what is asked, one thing each, in order and at most `most`; the text itself if it asks one thing.

    "Do Shopify and SAP send webhooks, and how are they signed?" has three parts: of each of the two whether it sends
    them, and the signing. What is left out past `most` is still part of the whole question, which is looked up too.
    """
    clauses = [clause for clause in map(str.strip, _CLAUSE.split(text)) if len(re.findall(r"\w", clause)) > 2]
    found = [part for clause in clauses for part in _each_named(clause)]
    different = list(dict.fromkeys(" ".join(part.split()) for part in found))
    return tuple(different[:most]) if len(different) > 1 else (text.strip(),)


def _each_named(clause: str) -> list[str]:
    """Return the clause once for each thing of its longest list of names, with the list's other names left out."""
    names = _longest_list(clause)
    if len(names) < 2:
        return [clause]
    before, after = clause[: names[0].start], clause[names[-1].end :]
    return [f"{before}{clause[name.start : name.end]}{after}" for name in names]


def _longest_list(clause: str) -> list[_Span]:
    best: list[_Span] = []
    listed: list[_Span] = []
    joined, words = False, 0
    for token in _TOKEN.finditer(clause):
        if _AND.match(token[0]):
            joined, words = True, 0
        elif not _is_name(token[0]):
            listed, joined, words = [], False, 0
        elif listed and not joined and words < _LONGEST_NAME:
            listed[-1] = _Span(listed[-1].start, token.end())
            words += 1
        else:
            listed = [*listed, _Span(token.start(), token.end())] if joined else [_Span(token.start(), token.end())]
            joined, words = False, 1
        grown = bool(listed and best) and listed[0].start == best[0].start
        if len(listed) > len(best) or grown:
            best = listed
    return best


def _is_name(token: str) -> bool:
    if token[0] in _QUOTES:
        return True
    if _STARTS.match(token) or len(token) < 2:
        return False
    return token[0].isupper() or any(char.isupper() for char in token[1:]) or any(char.isdigit() for char in token)
