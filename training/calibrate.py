"""Fit the confidence gate's calibration to one model: from log-probabilities to the share of right decisions.

`python -m training.calibrate ROWS.jsonl --model NAME [--adapter NAME] [--weights FILE] --out FILE.json` reads rows
`{"logprobs": [of the decision's tokens, in order], "correct": true or false}` and prints the quality, measured on parts
that were not fitted on. Mix known and drifted inputs: fitted on easy ones alone it is sure of everything.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score  # pyright: ignore[reportUnknownVariableType] - sklearn is untyped
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from workers.answers.gate import Bin, Calibration, Quality, features_of

Row = tuple[Sequence[float], bool]
Numbers = NDArray[np.float64]

FOLDS: Final = 5
LEAST: Final = 30
"""Rows of each kind, below which a calibration would be a guess."""
BINS: Final = 10
THRESHOLDS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)


class TooFewRows(ValueError):
    """There are too few right or too few wrong decisions to fit anything."""


def calibrate(
    rows: Sequence[Row], *, model: str, adapter: str | None, adapter_sha256: str | None = None
) -> Calibration:
    """Return the calibration of a model, with its quality on rows it was not fitted on.

    Raises:
        TooFewRows: there are less than `LEAST` right or wrong ones.
    """
    right = np.array([correct for _, correct in rows], dtype=np.int64)
    if min(int(right.sum()), len(rows) - int(right.sum())) < LEAST:
        raise TooFewRows(
            f"give at least {LEAST} right and {LEAST} wrong ones; {int(right.sum())} of {len(rows)} are right"
        )
    features = np.array([features_of(logprobs) for logprobs, _ in rows])
    unseen = np.zeros(len(rows))
    for fitted, judged in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, right):
        unseen[judged] = _fitted(features[fitted], right[fitted]).predict_proba(features[judged])[:, 1]
    scaler, regression = _fitted(features, right).named_steps.values()
    return Calibration(
        version=1,
        model=model,
        adapter=adapter,
        adapter_sha256=adapter_sha256,
        centre=_rounded(scaler.mean_),
        scale=_rounded(scaler.scale_),
        weights=_rounded(regression.coef_[0]),
        bias=round(float(regression.intercept_[0]), 6),
        quality=quality_of(unseen, right),
    )


def quality_of(confidence: Numbers, right: NDArray[np.int64]) -> Quality:
    """Return how well confidences tell right decisions from wrong ones, and how true they are as shares."""
    return Quality(
        rows=len(right),
        right=round(float(right.mean()), 4),
        ece=round(calibration_error(confidence, right), 4),
        auroc=round(float(cast("Any", roc_auc_score)(right, confidence)), 4),
        curve=tuple(_point(confidence, right, threshold) for threshold in THRESHOLDS),
    )


def calibration_error(confidence: Numbers, right: NDArray[np.int64]) -> float:
    """Return the expected calibration error over `BINS` bins of equal width."""
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = (abs(float(confidence[places == n].mean()) - float(right[places == n].mean())) * float((places == n).mean())
            for n in range(BINS) if (places == n).any())  # fmt: skip
    return sum(gaps)


def read_rows(lines: Iterable[str]) -> list[Row]:
    """Return the rows of JSON lines; those without log-probabilities are left out.

    Raises:
        ValueError: a line is no such row.
    """
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            read = json.loads(line)
            logprobs = [float(value) for value in read["logprobs"]]
            rows.append((logprobs, bool(read["correct"])))
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"line {number} is no row with `logprobs` and `correct`") from error
    return [row for row in rows if row[0]]


def main() -> int:
    """Fit, write, and print the quality as one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m training.calibrate", description="Fit the confidence gate.")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--model", required=True, help="its name in the policy's `models`: the value of `model`")
    parser.add_argument("--adapter", help="the adapter's name there")
    parser.add_argument("--weights", type=Path, help="the adapter's weights, whose hash ties the calibration to them")
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    digest = hashlib.sha256(wanted.weights.read_bytes()).hexdigest() if wanted.weights else None
    try:
        with wanted.rows.open(encoding="utf-8") as lines:
            rows = read_rows(lines)
        found = calibrate(rows, model=wanted.model, adapter=wanted.adapter, adapter_sha256=digest)
    except ValueError as error:
        parser.error(str(error))
    wanted.out.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(found.quality.model_dump_json() + "\n")
    return 0


def _fitted(features: Numbers, right: NDArray[np.int64]) -> Any:
    judge = Pipeline([("scale", StandardScaler()), ("weigh", LogisticRegression(max_iter=1_000))])
    return judge.fit(features, right)


def _point(confidence: Numbers, right: NDArray[np.int64], threshold: float) -> Bin:
    taken = confidence >= threshold
    precision = round(float(right[taken].mean()), 4) if taken.any() else None
    return Bin(threshold=threshold, accepted=round(float(taken.mean()), 4), precision=precision)


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


if __name__ == "__main__":
    sys.exit(main())
