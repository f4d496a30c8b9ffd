"""`python -m training.router`: train the classifier on the utterances beside it and write the files that serve."""

import argparse
import hashlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import workers.orchestrator
from training.router.fitting import Labelled, fit, measured, scaled
from training.router.utterances import Utterance, digest, held_out, loose, templated
from workers.orchestrator.classifier import Card, Classifier, state_of
from workers.orchestrator.rules import RuleRouter

VERSION: Final = 1


def main() -> int:
    """Train, measure, write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.router", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(workers.orchestrator.__file__).parent, help="Folder to write to."
    )
    given = parser.parse_args()
    started = time.perf_counter()
    trained, metrics = train()
    arrays = trained.as_bytes()
    card = Card(
        version=VERSION,
        sha256=hashlib.sha256(arrays).hexdigest(),
        data_sha256=digest(),
        labels=trained.labels,
        temperature=trained.temperature,
        metrics=metrics,
    )
    (given.out / "classifier.npz").write_bytes(arrays)
    (given.out / "classifier.json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    told = {
        **json.loads(card.model_dump_json()),
        "bytes": len(arrays),
        "seconds": round(time.perf_counter() - started, 1),
    }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return 0


def train() -> tuple[Classifier, dict[str, float]]:
    """Return the classifier of all utterances, and what it is worth on those held out."""
    worded = loose()
    rows = [*templated(), *worded]
    tuned = scaled(fit(labelled([*templated(), *worded[::2]])), labelled(worded[1::2]))
    trained = replace(fit(labelled(rows)), temperature=tuned.temperature)
    rounded = Classifier.read(
        trained.as_bytes(), Card(version=0, sha256=hashlib.sha256(trained.as_bytes()).hexdigest(), data_sha256="",
                                 labels=trained.labels, temperature=trained.temperature, metrics={}),
    )  # fmt: skip
    other = {f"held_out_{name}": value for name, value in measured(rounded, labelled(held_out())).items()}
    return trained, {"rows": float(len(rows)), **other}


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
