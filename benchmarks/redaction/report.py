"""The redaction beside a sample in which everything it has to find is marked."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import yaml

from infra.redaction.redactor import Redactor
from infra.redaction.spans import Kind, Span

SAMPLE: Final = Path(__file__).with_name("sample.yaml")
TURNS: Final = Path("shared/data/conversations/taskmaster4_orders.jsonl")
"""Real ordering dialogues without personal data, beside the checkout or above it."""

_MARK: Final = re.compile(r"\{\{(?P<kind>\w+):(?P<value>.*?)\}\}(?!\})", re.DOTALL)
_ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class Labelled:
    """One message and what is in it."""

    language: str
    text: str
    marks: tuple[Span, ...]


@dataclass(slots=True)
class Score:
    """What became of one kind."""

    marked: int = 0
    found: int = 0
    hits: int = 0
    right: int = 0
    missed: list[str] = field(default_factory=list[str])

    def figures(self) -> dict[str, float]:
        """Return recall and precision as shares; 1 where there was nothing to find or nothing found."""
        return {
            "marked": self.marked,
            "recall": self.found / self.marked if self.marked else 1.0,
            "precision": self.right / self.hits if self.hits else 1.0,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The scores by kind, and every finding where none was marked."""

    messages: int
    scores: dict[str, Score]
    false_hits: list[str]


def read_sample(path: Path = SAMPLE) -> list[Labelled]:
    """Return the messages of a sample."""
    rows: list[tuple[str, str]] = yaml.safe_load(path.read_text(encoding="utf-8"))["messages"]
    return [labelled(language, marked) for language, marked in rows]


def labelled(language: str, marked: str) -> Labelled:
    """Return a message without its marks, and where they were."""
    parts, marks, at, length = list[str](), list[Span](), 0, 0
    for mark in _MARK.finditer(marked):
        before, value = marked[at : mark.start()], mark["value"]
        length += len(before)
        marks.append(Span(length, length + len(value), Kind(mark["kind"])))
        length += len(value)
        parts += (before, value)
        at = mark.end()
    return Labelled(language, "".join([*parts, marked[at:]]), tuple(marks))


def compare(sample: Iterable[Labelled], redactor: Redactor) -> Report:
    """Find what is in each message and compare.

    A mark is found if one finding of its kind covers all of it; a finding is right if it meets a mark of its kind,
    and false if it meets no mark at all.
    """
    scores: dict[str, Score] = {kind: Score() for kind in Kind}
    false_hits: list[str] = []
    n = 0
    for message in sample:
        n += 1
        found = redactor.spans(message.text)
        for mark in message.marks:
            score = scores[mark.kind]
            score.marked += 1
            if any(hit.kind == mark.kind and hit.start <= mark.start and mark.end <= hit.end for hit in found):
                score.found += 1
            else:
                score.missed.append(f"{message.language}: {message.text[mark.start : mark.end]!r} in {message.text!r}")
        for hit in found:
            scores[hit.kind].hits += 1
            scores[hit.kind].right += any(hit.kind == mark.kind and hit.overlaps(mark) for mark in message.marks)
            if not any(hit.overlaps(mark) for mark in message.marks):
                false_hits.append(f"{hit.kind}: {message.text[hit.start : hit.end]!r} in {message.text!r}")
    return Report(n, scores, false_hits)


def microseconds(texts: list[str], redactor: Redactor) -> float:
    """Return what a message costs, in CPU microseconds, of several rounds the median."""
    rounds: list[float] = []
    for _ in range(_ROUNDS):
        start = time.process_time_ns()
        for text in texts:
            redactor.clean(text)
        rounds.append((time.process_time_ns() - start) / 1e3 / len(texts))
    return median(rounds)


def ordering_turns(root: Path) -> list[str] | None:
    """Return real visitors' messages in which nothing may be found; None where the data is not at hand."""
    path = next((folder / TURNS for folder in (root, *root.parents) if (folder / TURNS).exists()), None)
    if path is None:
        return None
    dialogues: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [turn["text"] for dialogue in dialogues for turn in dialogue["turns"] if turn["role"] == "user"]


def hits_in(texts: Iterable[str], redactor: Redactor) -> Counter[str]:
    """Count findings in texts that have nothing to be found."""
    return Counter(span.kind for text in texts for span in redactor.spans(text))
