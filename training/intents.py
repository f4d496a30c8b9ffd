"""`python -m training.intents`: the classifier on public intent sets, and all routers on utterances held out.

The sets are not part of this repository: `--data` names a folder with `clinc150_train.jsonl`, `clinc150_val.jsonl` and
`banking77_train.jsonl`, one object `{text, label}` a line. Without it only the routers are measured, on our own
utterances; with it also on those of its messages whose label names an agent (`public`).
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from training.agents import public, routers
from training.router.fitting import Labelled, auroc, fit, measured, probabilities, scaled
from training.router.utterances import held_out
from training.rows import Row, read, split
from workers.orchestrator.classifier import Classifier

OUTSIDE: Final = "oos"
"""Label of what belongs to no intent: never trained on, only to be told from the rest."""

_TIMED: Final = 500
PARTS: Final = ("routers", "public", "clinc150", "banking77")


def main() -> int:
    """Measure and print one JSON object; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.intents", description=__doc__)
    parser.add_argument("--data", type=Path, help="Folder with the intent sets.")
    parser.add_argument("--only", choices=PARTS, action="append", help="A part to measure; may be repeated.")
    given = parser.parse_args()
    parts = [part for part in PARTS if part in (given.only or PARTS)]
    told: dict[str, object] = {}
    for part in parts:
        if part == "routers":
            told[part] = asyncio.run(routers(held_out()))
        elif given.data is not None and part == "public":
            told[part] = asyncio.run(routers(public(given.data), ("rules", "classifier")))
        elif given.data is not None:
            told[part] = on_intents(*_set(given.data, part))
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return 0


def _set(data: Path, name: str) -> tuple[list[Row], list[Row]]:
    """Return a set's rows to train on and to measure by; of one without a second file, every fifth row measures."""
    if name == "clinc150":
        return read(data / "clinc150_train.jsonl"), read(data / "clinc150_val.jsonl")
    return split(read(data / "banking77_train.jsonl"))


def on_intents(train: list[Row], valid: list[Row]) -> dict[str, float]:
    """Return what the classifier is worth on `valid`: all of `train` gave its weights, none of `valid` gave anything.

    The temperature is that of a classifier fitted to four fifths, on the fifth that it did not see.
    """
    rows = [row for row in train if row[1] != OUTSIDE]
    kept, aside = split(rows)
    started = time.process_time()
    tuned = scaled(fit(_labelled(kept)), _labelled(aside))
    raw = fit(_labelled(rows))
    seconds = time.process_time() - started
    tuned = replace(raw, temperature=tuned.temperature)
    data = _labelled([row for row in valid if row[1] != OUTSIDE])
    told = {"labels": float(len(raw.labels)), **measured(tuned, data), "ece_unscaled": measured(raw, data)["ece"]}
    outside = _labelled([row for row in valid if row[1] == OUTSIDE])
    if outside.texts:
        told["oos_auroc"] = told_apart(raw, data, outside)
        told["oos_auroc_scaled"] = told_apart(tuned, data, outside)
    times = [_milliseconds(tuned, text) for text in data.texts[:_TIMED]]
    return told | {
        "temperature": tuned.temperature,
        "trained_on": float(len(rows)),
        "features": float(len(raw.weights)),
        "bytes": float(len(raw.as_bytes())),
        "fit_cpu_seconds": round(seconds, 1),
        "ms_p50": round(statistics.median(times), 3),
        "ms_p95": round(statistics.quantiles(times, n=20)[-1], 3),
    }


def told_apart(classifier: Classifier, inside: Labelled, outside: Labelled) -> float:
    """Return the AUROC of the highest probability: how well it tells texts of the labels from those of none."""
    sure, unsure = (probabilities(classifier, part).max(axis=1) for part in (inside, outside))
    return round(auroc(sure, unsure), 4)


def _labelled(rows: list[Row]) -> Labelled:
    return Labelled([text for text, _ in rows], [label for _, label in rows])


def _milliseconds(classifier: Classifier, text: str) -> float:
    started = time.perf_counter()
    classifier.probabilities(text)
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
