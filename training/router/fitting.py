"""Features, weights and temperature from labelled texts; and what a classifier is worth."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from workers.orchestrator.classifier import Classifier
from workers.orchestrator.features import Block, runs_of, words_of

STRENGTH: Final = 10.0
"""Inverse of the regularisation."""

_TEMPERATURES: Final = tuple(round(1.02**step, 4) for step in range(-115, 116))
"""From a tenth to ten, two per cent apart."""

_BINS: Final = 15

State = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts with their labels, and with further features if there are any."""

    texts: Sequence[str]
    labels: Sequence[str]
    states: Sequence[State] = ()

    def state(self, place: int) -> State:
        """Return the further features of one text."""
        return self.states[place] if self.states else ()


def fit(data: Labelled, *, least: int = 2) -> Classifier:
    """Return a classifier with temperature 1; features that fewer than `least` texts have are left out."""
    words = _block(data.texts, words_of, first=0, least=least)
    runs = _block(data.texts, runs_of, first=len(words.columns), least=least)
    first = len(words.columns) + len(runs.columns)
    matrix = _matrix(data, (words, runs), first)
    model = LogisticRegression(C=STRENGTH, max_iter=400)
    model.fit(matrix, list(data.labels))
    weights, bias = cast("tuple[NDArray[np.float64], NDArray[np.float64]]", (model.coef_, model.intercept_))
    if len(weights) == 1:  # of two labels the library keeps one row
        weights, bias = np.vstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return Classifier(
        labels=tuple(map(str, cast("Sequence[str]", model.classes_))),
        temperature=1.0,
        words=words,
        runs=runs,
        weights=np.ascontiguousarray(weights.T, dtype=np.float32),
        bias=bias.astype(np.float32),
    )


def scaled(classifier: Classifier, data: Labelled) -> Classifier:
    """Return the classifier with the temperature under which the labels of `data` are likeliest."""
    return replace(classifier, temperature=temperature_of([(classifier, data)]))


def temperature_of(judged: Sequence[tuple[Classifier, Labelled]]) -> float:
    """Return the temperature under which the labels are likeliest, of classifiers beside what each did not see."""
    scores = np.log(np.maximum(np.vstack([probabilities(classifier, data) for classifier, data in judged]), 1e-12))
    places = np.concatenate([_places(classifier, data) for classifier, data in judged])

    def surprise(temperature: float) -> float:
        raised = scores / temperature
        raised = raised - raised.max(axis=1, keepdims=True)
        chosen = raised[np.arange(len(places)), places] - np.log(np.exp(raised).sum(axis=1))
        return -float(chosen.mean())

    return min(_TEMPERATURES, key=surprise)


def probabilities(classifier: Classifier, data: Labelled) -> NDArray[np.float32]:
    """Return the probabilities of every text, one row each."""
    return np.vstack([classifier.probabilities(text, data.state(n)) for n, text in enumerate(data.texts)])


def measured(classifier: Classifier, data: Labelled) -> dict[str, float]:
    """Return accuracy, calibration, and cover and accuracy above thresholds."""
    likely = probabilities(classifier, data)
    sure, right = likely.max(axis=1), likely.argmax(axis=1) == _places(classifier, data)
    told = {"rows": float(len(right)), "accuracy": float(right.mean()), "ece": calibration_error(sure, right)}
    for threshold in (0.7, 0.85):
        above = sure >= threshold
        told[f"cover_at_{threshold}"] = float(above.mean())
        told[f"accuracy_at_{threshold}"] = float(right[above].mean()) if above.any() else 0.0
    return {name: round(value, 4) for name, value in told.items()}


def calibration_error(sure: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error over bins of equal width."""
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = (
        (bins == number).mean() * abs(float(sure[bins == number].mean()) - float(right[bins == number].mean()))
        for number in np.unique(bins)
    )
    return float(sum(gaps))


def auroc(inside: NDArray[np.float32], outside: NDArray[np.float32]) -> float:
    """Return how likely a text of the set is told from one outside it by its confidence."""
    ranks = np.argsort(np.argsort(np.concatenate([inside, outside]))) + 1.0
    above = ranks[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2
    return float(above / (len(inside) * len(outside)))


def _places(classifier: Classifier, data: Labelled) -> NDArray[np.intp]:
    known = {label: place for place, label in enumerate(classifier.labels)}
    return np.array([known[label] for label in data.labels], dtype=np.intp)


def _block(texts: Sequence[str], counted: Callable[[str], Counter[str]], *, first: int, least: int) -> Block:
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(counted(text).keys())
    names = sorted(name for name, times in seen.items() if times >= least)
    idf = np.log((1 + len(texts)) / (1 + np.array([seen[name] for name in names], dtype=np.float32))) + 1
    return Block.of(names, first, idf.astype(np.float32))


def _matrix(data: Labelled, blocks: tuple[Block, Block], first: int) -> csr_matrix:
    further = len(data.state(0))
    columns: list[NDArray[np.intp]] = []
    weights: list[NDArray[np.float32]] = []
    ends = [0]
    for place, text in enumerate(data.texts):
        for block, counted in zip(blocks, (words_of(text), runs_of(text)), strict=True):
            found, weighed = block.weigh(counted)
            columns.append(found)
            weights.append(weighed)
        columns.append(np.arange(first, first + further))
        weights.append(np.array(data.state(place), dtype=np.float32))
        ends.append(ends[-1] + sum(map(len, columns[-3:])))
    shape = (len(data.texts), first + further)
    return csr_matrix((np.concatenate(weights), np.concatenate(columns), np.array(ends)), shape=shape)
