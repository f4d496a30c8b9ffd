"""The trained classifier: TF-IDF and logistic regression as plain arrays, its confidence scaled by a temperature."""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from infra.postgres.inbox import Prepared
from schemas.agents import Agent
from workers.orchestrator.features import Block, runs_of, words_of
from workers.orchestrator.finding import MAX_READ, Finding, NoFinding
from workers.orchestrator.rules import RuleRouter
from workers.orchestrator.state import state_of

UNKNOWN_WORDS: Final = "unknown_words"

_ARRAYS: Final = "classifier.npz"
_CARD: Final = "classifier.json"


class Card(BaseModel):
    """What is said about a trained classifier: where it comes from and what it is worth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    sha256: str
    """Of the arrays."""
    data_sha256: str
    """Of the utterances it was trained on."""
    labels: tuple[str, ...]
    temperature: float
    metrics: dict[str, float]


class ClassifierDamaged(Exception):
    """The classifier's files do not belong together. Train it again: `python -m training.router`."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """Weights and vocabulary. Reads no pickle: a damaged or foreign file can do no more than be wrong."""

    labels: tuple[str, ...]
    temperature: float
    words: Block
    runs: Block
    weights: NDArray[np.float32]
    """One row a feature, one column a label; the last rows are those of the state."""
    bias: NDArray[np.float32]

    def probabilities(self, text: str, state: tuple[float, ...] = ()) -> NDArray[np.float32]:
        """Return the probability of each label, in their order.

        Args:
            text: any text; what is in it beyond `features.MAX_CHARS` is not looked at.
            state: values of further features, as many as it was trained with.
        """
        scores = self.bias.astype(np.float32)
        for block, counted in ((self.words, words_of(text)), (self.runs, runs_of(text))):
            columns, weighed = block.weigh(counted)
            scores = scores + weighed @ self.weights[columns]
        if state:
            scores = scores + np.asarray(state, dtype=np.float32) @ self.weights[-len(state) :]
        scores = (scores - scores.max()) / self.temperature
        raised = np.exp(scores)
        return raised / raised.sum()

    def as_bytes(self) -> bytes:
        """Return the arrays as an `npz` file without objects."""
        written = io.BytesIO()
        np.savez_compressed(
            written,
            weights=self.weights.astype(np.float16),
            bias=self.bias,
            words=_as_array(self.words.columns),
            words_idf=self.words.idf,
            runs=_as_array(self.runs.columns),
            runs_idf=self.runs.idf,
        )
        return written.getvalue()

    @classmethod
    def read(cls, data: bytes, card: Card) -> "Classifier":
        """Return the classifier of these arrays.

        Raises:
            ClassifierDamaged: they are not the ones the card tells of.
        """
        if hashlib.sha256(data).hexdigest() != card.sha256:
            raise ClassifierDamaged(f"{_ARRAYS} is not what {_CARD} tells of; run `python -m training.router`")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            words, runs = (bytes(arrays[name]).decode().split("\n") for name in ("words", "runs"))
            return cls(
                labels=card.labels,
                temperature=card.temperature,
                words=Block.of(words, 0, arrays["words_idf"]),
                runs=Block.of(runs, len(words), arrays["runs_idf"]),
                weights=arrays["weights"].astype(np.float32),
                bias=arrays["bias"],
            )


def _as_array(names: Iterable[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\n".join(names).encode(), dtype=np.uint8)


@cache
def shipped() -> tuple[Classifier, Card]:
    """Return the classifier that comes with the package, read once.

    Raises:
        ClassifierDamaged: its files do not belong together.
    """
    folder = resources.files("workers.orchestrator")
    card = Card.model_validate_json(folder.joinpath(_CARD).read_bytes())
    return Classifier.read(folder.joinpath(_ARRAYS).read_bytes(), card), card


class ClassifierRouter:
    """Decides by the classifier; what else is to be known comes from the rules."""

    def __init__(self, rules: RuleRouter) -> None:
        """Read the shipped classifier.

        Raises:
            ClassifierDamaged: its files do not belong together.
        """
        self._rules = rules
        self._classifier, card = shipped()
        self._agents = tuple(Agent(label) for label in card.labels)
        self.name = f"classifier-{card.version}-{card.sha256[:8]}"

    async def find(self, turn: Prepared, *, within: float) -> Finding:
        """Return the likeliest agent; NoFinding where the text has nothing that it knows."""
        return self.judge(turn, self._rules.judge(turn))

    def judge(self, turn: Prepared, rules: Finding) -> Finding:
        """Return the likeliest agent with what the rules found beside it, without waiting.

        Raises:
            NoFinding: the text has nothing in it that was trained on.
        """
        text = turn.text[:MAX_READ]
        known = self._classifier.words.columns.keys() & words_of(text).keys()
        if not known and not self._classifier.runs.columns.keys() & runs_of(text).keys():
            raise NoFinding(UNKNOWN_WORDS, router=self.name)
        likely = self._classifier.probabilities(text, state_of(turn, rules))
        best = int(likely.argmax())
        return Finding(
            agent=self._agents[best],
            why=f"resembles what {self._agents[best].replace('_', ' ')} answers",
            intent=rules.intent,
            confidence=round(float(likely[best]), 4),
            router=self.name,
            phase=rules.phase,
            signals=rules.signals,
            repeats=rules.repeats,
            risk=rules.risk,
            problem=rules.problem,
        )
