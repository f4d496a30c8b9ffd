"""`python -m training.router`: train the classifier on the utterances beside it and write the files that serve."""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Final

import workers.orchestrator
from training.router.fitting import Labelled, fit, measured, temperature_of
from training.router.utterances import Utterance, digest, held_out, loose, situations, templated
from workers.orchestrator.classifier import Card, Classifier
from workers.orchestrator.rules import RuleRouter
from workers.orchestrator.state import state_of

VERSION: Final = 2
FOLDS: Final = 4
"""Parts of the utterances worded one by one, each judged by what the others trained."""


def main() -> int:
    """Train, measure, write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.router", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(workers.orchestrator.__file__).parent, help="Folder to write to."
    )
    given = parser.parse_args()
    started = time.perf_counter()
    arrays, card = train()
    (given.out / "classifier.npz").write_bytes(arrays)
    (given.out / "classifier.json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    told = {
        **json.loads(card.model_dump_json()),
        "bytes": len(arrays),
        "seconds": round(time.perf_counter() - started, 1),
    }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return 0


def train() -> tuple[bytes, Card]:
    """Return the classifier of all utterances, with what it is worth on those held out and in cross-validation.

    The temperature comes from utterances worded one by one, each judged by a classifier that saw neither it nor what
    says the same in another language.
    """
    worded = [*loose(), *situations()]
    rows = [*templated(), *worded]
    judged: list[tuple[Classifier, Labelled]] = []
    for fold in range(FOLDS):
        seen = [row for row in worded if row.place % FOLDS != fold]
        unseen = [row for row in worded if row.place % FOLDS == fold]
        judged.append((fit(labelled([*templated(), *seen])), labelled(unseen)))
    right = sum(measured(classifier, data)["accuracy"] * len(data.texts) for classifier, data in judged)
    fitted = fit(labelled(rows))
    arrays = fitted.as_bytes()
    card = Card(
        version=VERSION,
        sha256=hashlib.sha256(arrays).hexdigest(),
        data_sha256=digest(),
        labels=fitted.labels,
        temperature=temperature_of(judged),
        metrics={
            "rows": float(len(rows)),
            "worded_one_by_one": float(len(worded)),
            "folds_accuracy": round(right / len(worded), 4),
        },
    )
    # What serves is rounded: that is what is measured.
    found = measured(Classifier.read(arrays, card), labelled(held_out()))
    metrics = card.metrics | {f"held_out_{name}": value for name, value in found.items()}
    return arrays, card.model_copy(update={"metrics": metrics})


def labelled(rows: list[Utterance]) -> Labelled:
    """Return utterances as the classifier sees them."""
    rules = RuleRouter()
    turns = [row.turn() for row in rows]
    return Labelled(
        texts=[row.text for row in rows],
        labels=[row.agent.value for row in rows],
        states=[state_of(turn, rules.judge(turn)) for turn in turns],
    )


if __name__ == "__main__":
    sys.exit(main())
