"""`python -m training.intents`: the classifier on public intent sets, and all routers on utterances held out.

The sets are not part of this repository: `--data` names a folder with `clinc150_train.jsonl`, `clinc150_val.jsonl` and
`banking77_train.jsonl`, one object `{text, label}` a line. Without it only the routers are measured.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from infra.policy import load_policy
from infra.settings import Settings
from schemas.agents import ANSWERING
from schemas.routing_policy import RouterName
from simulators.testing import running
from training.router.fitting import Labelled, auroc, fit, measured, probabilities, scaled
from training.router.utterances import held_out
from workers.orchestrator.classifier import Classifier
from workers.orchestrator.routing import routing_of

OUTSIDE: Final = "oos"
"""Label of what belongs to no intent: never trained on, only to be told from the rest."""

_PART: Final = 5
_TIMED: Final = 500
PARTS: Final = ("routers", "clinc150", "banking77")
ROUTERS: Final[tuple[RouterName, ...]] = ("rules", "classifier", "cascade", "frontier")

Row = tuple[str, str]


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
            told[part] = asyncio.run(routers())
        elif given.data is not None:
            told[part] = on_intents(*_set(given.data, part))
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return 0


def _set(data: Path, name: str) -> tuple[list[Row], list[Row]]:
    """Return a set's rows to train on and to measure by; of one without a second file, every fifth row measures."""
    if name == "clinc150":
        return read(data / "clinc150_train.jsonl"), read(data / "clinc150_val.jsonl")
    return split(read(data / "banking77_train.jsonl"))


def read(path: Path) -> list[Row]:
    """Return texts and labels of a file."""
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


def on_intents(train: list[Row], valid: list[Row]) -> dict[str, float]:
    """Return what the classifier is worth on `valid`: four fifths of `train` gave its weights, one its temperature."""
    kept, aside = split([row for row in train if row[1] != OUTSIDE])
    started = time.process_time()
    raw = fit(_labelled(kept))
    tuned = scaled(raw, _labelled(aside))
    seconds = time.process_time() - started
    data = _labelled([row for row in valid if row[1] != OUTSIDE])
    told = {"labels": float(len(raw.labels)), **measured(tuned, data), "ece_unscaled": measured(raw, data)["ece"]}
    outside = _labelled([row for row in valid if row[1] == OUTSIDE])
    if outside.texts:
        sure, unsure = (probabilities(tuned, part).max(axis=1) for part in (data, outside))
        told["oos_auroc"] = round(auroc(sure, unsure), 4)
    times = [_milliseconds(tuned, text) for text in data.texts[:_TIMED]]
    return told | {
        "temperature": tuned.temperature,
        "trained_on": float(len(kept)),
        "features": float(len(raw.weights)),
        "fit_cpu_seconds": round(seconds, 1),
        "ms_p50": round(statistics.median(times), 3),
        "ms_p95": round(statistics.quantiles(times, n=20)[-1], 3),
    }


async def routers() -> dict[str, dict[str, float]]:
    """Return accuracy, macro-F1 and latency of each router on the utterances held out.

    The frontier is a simulator on loopback that knows words: its figures show the way there, not what a model knows.
    """
    policy = load_policy()
    told: dict[str, dict[str, float]] = {}
    async with running("openai", models=policy.served_by("frontier")) as frontier:
        settings = Settings(frontier_base_url=frontier.base_url, discovery_base_url=None)
        for name in ROUTERS:
            chosen = policy.model_copy(update={"routing": policy.routing.model_copy(update={"router": name})})
            routing, client = routing_of(chosen, settings)
            frontier.clear()
            found: list[tuple[str, str]] = []
            times: list[float] = []
            for row in held_out():
                started = time.perf_counter()
                finding = await routing.find(row.turn(), within=policy.routing.deadline)
                times.append(1000 * (time.perf_counter() - started))
                found.append((row.agent.value, finding.agent.value))
            if client is not None:
                await client.aclose()
            told[name] = {
                "rows": float(len(found)),
                "accuracy": round(sum(wanted == got for wanted, got in found) / len(found), 4),
                "macro_f1": round(macro_f1(found), 4),
                "asked_frontier": round(len(frontier.requests()) / len(found), 4),
                "ms_p50": round(statistics.median(times), 3),
                "ms_p95": round(statistics.quantiles(times, n=20)[-1], 3),
            }
    return told


def macro_f1(found: list[tuple[str, str]]) -> float:
    """Return the mean over agents of how well each one is found, of pairs (wanted, got)."""
    scores: list[float] = []
    for agent in map(str, ANSWERING):
        right = sum(wanted == got == agent for wanted, got in found)
        named = sum((wanted == agent) + (got == agent) for wanted, got in found)
        scores.append(2 * right / named if named else 0.0)
    return sum(scores) / len(scores)


def _labelled(rows: list[Row]) -> Labelled:
    return Labelled([text for text, _ in rows], [label for _, label in rows])


def _milliseconds(classifier: Classifier, text: str) -> float:
    started = time.perf_counter()
    classifier.probabilities(text)
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
