"""A text as weighted features: words, pairs of words and short runs of characters. The same in training and serving."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_CHARS: Final = 1_000
"""A message says what it is about within so many characters; the rest would only cost time."""

_WORD: Final = re.compile(r"\w+")
_SHORTEST, _LONGEST = 2, 5

Vector = tuple[NDArray[np.intp], NDArray[np.float32]]
"""Indices of the features that occur, ascending, and their weights."""


def words_of(text: str) -> Counter[str]:
    """Count words and pairs of neighbours."""
    words = _WORD.findall(text[:MAX_CHARS].lower())
    counted = Counter(words)
    counted.update(map(" ".join, pairwise(words)))
    return counted


def runs_of(text: str) -> Counter[str]:
    """Count runs of two to five characters inside words, whose ends are marked by a space."""
    counted: Counter[str] = Counter()
    for word in re.split(r"\s+", text[:MAX_CHARS].lower().strip()):
        marked = f" {word} "
        for length in range(_SHORTEST, _LONGEST + 1):
            counted.update([marked[at : at + length] for at in range(max(1, len(marked) - length + 1))])
    return counted


@dataclass(frozen=True, slots=True)
class Block:
    """One kind of features: which there are, from which column on, and how much each says."""

    columns: Mapping[str, int]
    """Feature to column, counted from 0 within the block."""
    first: int
    idf: NDArray[np.float32]

    @classmethod
    def of(cls, names: Sequence[str], first: int, idf: NDArray[np.float32]) -> "Block":
        """Return a block of `names`, in the order of their columns."""
        return cls({name: column for column, name in enumerate(names)}, first, idf)

    def weigh(self, counted: Counter[str]) -> Vector:
        """Return the features that are known: log-damped counts times their idf, of length 1 together."""
        known = sorted((self.columns[name], count) for name, count in counted.items() if name in self.columns)
        columns = np.array([column for column, _ in known], dtype=np.intp)
        counts = np.array([count for _, count in known], dtype=np.float32)
        weights = (1 + np.log(counts)) * self.idf[columns] if known else counts
        length = float(np.sqrt(weights @ weights)) or 1.0
        return columns + self.first, (weights / length).astype(np.float32)
