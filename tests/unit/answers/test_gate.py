"""The confidence gate: fitted to one model, refused for any other."""

import json
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pytest

from benchmarks import gate as bench
from infra.policy import load_policy
from schemas.gate_policy import ConfidencePolicy
from schemas.policy import Policy
from training.calibrate import TooFewRows, calibrate, calibration_error, read_rows
from workers.answers.gate import Calibration, CalibrationInvalid, gates_of, read_calibration

ROWS = [((-0.02 - 0.001 * (n % 7), -0.01), n % 20 != 0) for n in range(600)] + [
    ((-1.0 - 0.05 * (n % 9), -0.4), n % 3 == 0) for n in range(400)
]


def _policy(**confidence: object) -> Policy:
    policy = load_policy()
    wanted = ConfidencePolicy.model_validate({"enabled": True, **confidence})
    return policy.model_copy(update={"gate": policy.gate.model_copy(update={"confidence": wanted})})


def _fitted(tmp_path: Path) -> tuple[Calibration, str]:
    model = load_policy().models["discovery-slm"]
    found = calibrate(ROWS, model=model.model, adapter=model.adapter, adapter_sha256="a" * 64)
    place = tmp_path / "calibration.json"
    place.write_text(found.model_dump_json())
    return found, str(place)


def test_the_gate_is_off_unless_asked_for() -> None:
    """The shipped policy gates no decision."""
    assert gates_of(load_policy()) == {}


def test_the_gate_will_not_start_without_a_calibration_of_its_model(tmp_path: Path) -> None:
    """The shipped calibration is the simulator's: for another model, other weights or no file there is an error."""
    _, place = _fitted(tmp_path)
    with pytest.raises(CalibrationInvalid, match=r"was fitted on 'fairlead-simulator'.*training.calibrate"):
        gates_of(_policy())
    with pytest.raises(CalibrationInvalid, match="other weights"):
        gates_of(_policy(calibration=place, adapter_sha256="b" * 64))
    with pytest.raises(CalibrationInvalid, match="cannot read"):
        gates_of(_policy(calibration=str(tmp_path / "none.json")))
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(CalibrationInvalid, match="does not fit"):
        gates_of(_policy(calibration=str(tmp_path / "broken.json")))


def test_a_fitted_calibration_opens_the_gate_for_its_model(tmp_path: Path) -> None:
    """With a calibration of the policy's own model the primary of discovery has its gate, at the policy's threshold."""
    found, place = _fitted(tmp_path)
    gates = gates_of(_policy(calibration=place, threshold=0.7, adapter_sha256="a" * 64))
    assert gates["discovery-slm"].calibration == found
    assert gates["discovery-slm"].threshold == 0.7


def test_confidences_are_shares_of_right_decisions(tmp_path: Path) -> None:
    """On rows that were not fitted on, the error is small and right ones are told from wrong ones."""
    found, _ = _fitted(tmp_path)
    assert found.quality.ece < 0.05
    assert found.quality.auroc > 0.75
    assert found.confidence((-0.02, -0.01)) == pytest.approx(0.95, abs=0.05)
    assert found.confidence((-1.2, -0.4)) == pytest.approx(0.33, abs=0.08)
    assert found.quality.curve[0].accepted == 1.0
    assert 0 < found.confidence((-1e6,)) < found.confidence((0.0,)) < 1


def test_the_shipped_calibration_is_the_simulators() -> None:
    """It can be read, names no real model, and says how good it is."""
    shipped = read_calibration(None)
    assert (shipped.model, shipped.adapter) == ("fairlead-simulator", "discovery")
    assert shipped.quality.ece <= 0.10
    assert shipped.quality.auroc >= 0.75


def test_too_little_to_fit_is_refused() -> None:
    """Without enough right and wrong decisions there is no calibration; broken rows are named."""
    with pytest.raises(TooFewRows, match="30"):
        calibrate(ROWS[:30], model="m", adapter=None)
    with pytest.raises(ValueError, match="line 2"):
        read_rows(['{"logprobs": [-0.1], "correct": true}', '{"logprobs": "x"}'])
    assert read_rows([json.dumps({"logprobs": [], "correct": True})]) == []


def test_the_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    """Right half of the time at 0.5 is no error; always right at 0.5 is one of a half."""
    half = np.full(10, 0.5)
    assert calibration_error(half, np.array([0, 1] * 5)) == pytest.approx(0)
    assert calibration_error(half, np.ones(10, dtype=np.int64)) == pytest.approx(0.5)


@pytest.mark.parametrize("dialect", ["tgi", "openai"])
def test_the_gate_is_measured(dialect: Literal["tgi", "openai"]) -> None:
    """The bench sees decisions through the provider, judges them, and gives a wait for each way of holding back."""
    found = bench.run(calls=300, streams=1, dialect=dialect, paced=False)
    judged = found["judged"]
    assert isinstance(judged, dict)
    assert judged["rows"] == 150
    assert judged["auroc"] >= 0.7
    waits = found["first_visible_ms"]
    assert {"bare", "gated", "sentence, gated", "answer, gated"} <= set(cast("dict[str, float]", waits))
