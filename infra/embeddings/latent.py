"""The embedded default: vectors fitted on the texts themselves, without any download (latent semantic analysis).

Each term gets a vector from the truncated singular value decomposition of the texts' term weights. A text's vector is
the weighed sum over its terms, so that also a database can make one. That of a piece leans to its document: a few
sentences seldom say what they are about.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

DIMS: Final = 256
MOST_TERMS: Final = 15_000
"""A space stands on; those that most texts have come first."""

_METHOD: Final = "lsa2"
"""Of a space's name. Vectors that are made otherwise need another one."""

_NOTHING: Final = 1e-9
"""A singular value of directions that the texts do not have."""

_Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Latent:
    """A fitted space."""

    name: str
    """Tells method, dimensions and what it was fitted on."""
    terms: dict[str, int]
    """The number of each term's axis."""
    axes: _Matrix
    """A row for each term: its vector, weighed by how little it says."""

    def vector(self, terms: Sequence[str]) -> list[float]:
        """Return the vector of a text with these terms: the weighed sum of their axes; zeros if none has one."""
        counted = Counter(term for term in terms if term in self.terms)
        if not counted:
            return [0.0] * self.axes.shape[1]
        weights = 1 + np.log(np.array(list(counted.values()), dtype=np.float64))
        total: _Matrix = weights @ self.axes[[self.terms[term] for term in counted]]
        return total.tolist()


def fit(texts: Sequence[Sequence[str]], documents: Sequence[int] = ()) -> Latent:
    """Return the space fitted on texts. The same texts in the same order give the same space.

    Takes seconds of one core for ten thousand texts: never in a request.

    Args:
        texts: each as its terms.
        documents: that each is of, as any number; the space's name tells the same texts in other documents apart.
    """
    seen = Counter(term for terms in texts for term in set(terms))
    least = 2 if len(texts) > 50 else 1
    kept = sorted((-count, term) for term, count in seen.items() if count >= least)[:MOST_TERMS]
    vocabulary = {term: number for number, (_, term) in enumerate(kept)}
    idf = np.array([math.log((1 + len(texts)) / (1 - count)) + 1 for count, _ in kept])
    axes = _singular_vectors(texts, vocabulary, idf) * idf[:, None]
    return Latent(f"{_METHOD}-{DIMS}-{_digest(texts, documents)}", vocabulary, axes)


def in_context(vectors: Sequence[Sequence[float]], documents: Sequence[int]) -> list[list[float]]:
    """Return the vectors of pieces, each leaning to those of its document, half and half.

    Args:
        vectors: one a piece, of any length.
        documents: that each piece is of, as any number. Whatever is alone in its document keeps its direction.
    """
    own = _of_length_one(np.array(vectors, dtype=np.float64))
    _, numbers = np.unique(np.array(documents), return_inverse=True)
    whole = np.zeros((int(numbers.max()) + 1, own.shape[1]))
    np.add.at(whole, numbers, own)
    return (own + _of_length_one(whole)[numbers]).tolist()


def _of_length_one(vectors: _Matrix) -> _Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _singular_vectors(texts: Sequence[Sequence[str]], vocabulary: dict[str, int], idf: _Matrix) -> _Matrix:
    """Return a row of `DIMS` numbers for each term; columns beyond the rank are zero."""
    rows: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    for number, terms in enumerate(texts):
        counted = {vocabulary[term]: times for term, times in Counter(terms).items() if term in vocabulary}
        # Not brought to one length: among thousands of short texts the long ones, which say more, have to count.
        rows.extend([number] * len(counted))
        columns.extend(counted)
        weights.extend((1 + math.log(times)) * float(idf[term]) for term, times in counted.items())
    shape = (len(texts), len(vocabulary))
    result = np.zeros((len(vocabulary), DIMS))
    if not weights:
        return result
    if min(shape) <= DIMS + 1:
        dense = np.zeros(shape)
        dense[rows, columns] = weights
        found = np.linalg.svd(dense, full_matrices=False)
    else:
        # Slow to import, and a few pieces, fitted in a gateway, do not need it.
        from scipy.sparse import csr_matrix
        from scipy.sparse.linalg import svds  # pyright: ignore[reportUnknownVariableType] # scipy

        matrix = csr_matrix((weights, (rows, columns)), shape=shape)
        found = svds(matrix, k=DIMS, rng=np.random.default_rng(0))  # pyright: ignore[reportUnknownVariableType] # scipy
    _, values, right = cast("tuple[_Matrix, _Matrix, _Matrix]", found)
    strongest = np.argsort(-values)[:DIMS]
    strongest = strongest[values[strongest] > _NOTHING]
    # The strongest directions are what every text is about: damped, the others have their say.
    result[:, : len(strongest)] = right[strongest].T / np.sqrt(values[strongest])
    return result


def _digest(texts: Sequence[Sequence[str]], documents: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for terms in texts:
        digest.update(" ".join(terms).encode() + b"\n")
    order = {document: number for number, document in enumerate(dict.fromkeys(documents))}
    digest.update(" ".join(str(order[document]) for document in documents).encode())
    return digest.hexdigest()[:12]
