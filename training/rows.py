"""Rows of public intent sets: a text and its label."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Final, TypeAlias

Row: TypeAlias = tuple[str, str]
"""Text, label."""

_PART: Final = 5


def read(path: Path) -> list[Row]:
    """Return texts and labels of a file with one object `{text, label}` a line."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["label"]) for row in rows]


def split(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return four fifths and the rest: every fifth row of each label, in the file's order."""
    seen: defaultdict[str, int] = defaultdict(int)
    parts: tuple[list[Row], list[Row]] = ([], [])
    for text, label in rows:
        parts[seen[label] % _PART == _PART - 1].append((text, label))
        seen[label] += 1
    return parts
