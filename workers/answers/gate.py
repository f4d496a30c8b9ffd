"""How sure a model is of what its answer is about, from the tokens that decide it and nothing else.

What frames a decision is certain whatever the model thinks, and a question has many good wordings: a score of
the whole answer says next to nothing. A calibration turns the few numbers that do into the share of right decisions.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.policy import PolicyInvalid
from infra.telemetry import metrics
from schemas.agents import Agent
from schemas.completions import LowConfidence
from schemas.policy import ModelPolicy, Policy

FEATURES: Final = ("product", "least", "mean", "first")
"""Log-probabilities of the decision's tokens: their sum, the least, the mean, the first."""

Token = tuple[str, float]
"""A token's text and its log-probability, before any grammar had its say where the server tells that."""


class CalibrationInvalid(PolicyInvalid):
    """The confidence gate is on and its calibration is missing or another model's. The message says what to do."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bin(_Frozen):
    """One point of the accept curve: at this threshold such a share is shown, and so many of those are right."""

    threshold: float
    accepted: float
    precision: float | None


class Quality(_Frozen):
    """How good the calibration is, on rows it was not fitted on."""

    rows: int = Field(ge=1)
    right: float = Field(ge=0, le=1)
    ece: float = Field(ge=0, le=1)
    auroc: float = Field(ge=0, le=1)
    curve: tuple[Bin, ...] = ()


class Calibration(_Frozen):
    """Logistic regression over `FEATURES`, for one model with one adapter. Written by `training.calibrate`."""

    version: Annotated[int, Field(ge=1)]
    model: str
    adapter: str | None
    adapter_sha256: str | None = None
    features: tuple[str, ...] = FEATURES
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    quality: Quality

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.features != FEATURES:
            raise ValueError(f"its features are not {', '.join(FEATURES)}; fit it anew")
        if {len(self.centre), len(self.scale), len(self.weights)} != {len(FEATURES)} or 0.0 in self.scale:
            raise ValueError("it needs a centre, a scale that is not 0 and a weight for each feature")
        return self

    def confidence(self, logprobs: Sequence[float]) -> float:
        """Return the share of right decisions among those with such log-probabilities."""
        values = zip(features_of(logprobs), self.centre, self.scale, self.weights, strict=True)
        total = self.bias + sum(weight * (value - centre) / scale for value, centre, scale, weight in values)
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, total))))


@dataclass(frozen=True, slots=True)
class ConfidenceGate:
    """Lets decisions pass that are sure enough."""

    calibration: Calibration
    threshold: float

    def judge(self, logprobs: Sequence[float]) -> float | None:
        """Return the confidence of a decision; None, and no judgement, without log-probabilities.

        Raises:
            LowConfidence: it is below the threshold.
        """
        if not logprobs:
            return None
        found = self.calibration.confidence(logprobs)
        metrics.DECISION_CONFIDENCE.observe(found)
        if found < self.threshold:
            raise LowConfidence(f"the decision's calibrated confidence {found:.2f} is below {self.threshold:g}")
        return found


def features_of(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Return `FEATURES` of a decision's tokens."""
    return (sum(logprobs), min(logprobs), sum(logprobs) / len(logprobs), logprobs[0])


def decision_tokens(tokens: Sequence[Token], decision: str = "dimension") -> tuple[float, ...]:
    """Return the log-probabilities of the tokens that hold the value of the key `decision`; empty where it is not.

    Args:
        tokens: the reply so far, token by token, which must join to it.
        decision: the key, whose value is a string.
    """
    found = re.search(rf'"{re.escape(decision)}"\s*:\s*"([^"\\]*)', "".join(text for text, _ in tokens))
    if found is None:
        return ()
    start, end, at = *found.span(1), 0
    chosen: list[float] = []
    for text, logprob in tokens:
        if at < end and at + len(text) > start:
            chosen.append(logprob)
        at += len(text)
    return tuple(chosen)


def gates_of(policy: Policy) -> dict[str, ConfidenceGate]:
    """Return the gate of discovery's primary under its name in the policy; nothing where the policy has it off.

    Raises:
        CalibrationInvalid: the gate is on and there is no calibration of that very model.
    """
    wanted = policy.gate.confidence
    if not wanted.enabled:
        return {}
    primary = policy.agents[Agent.DISCOVERY].primary
    calibration = read_calibration(wanted.calibration)
    _check_model(calibration, policy.models[primary], wanted.adapter_sha256)
    return {primary: ConfidenceGate(calibration, wanted.threshold)}


def read_calibration(path: str | None) -> Calibration:
    """Return the calibration at `path`, or the shipped one.

    Raises:
        CalibrationInvalid: it is missing, or none.
    """
    shipped = resources.files("workers.agents.discovery").joinpath("calibration.json")
    try:
        return Calibration.model_validate_json(shipped.read_bytes() if path is None else Path(path).read_bytes())
    except OSError as error:
        raise CalibrationInvalid(
            f"cannot read the calibration {path or shipped}: {error.strerror}; fit one with training.calibrate, "
            "or set gate.confidence.enabled to false"
        ) from error
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise CalibrationInvalid(f"the calibration {path or shipped} does not fit: {why}") from error


def _check_model(calibration: Calibration, model: ModelPolicy, digest: str | None) -> None:
    fitted = (calibration.model, calibration.adapter)
    if fitted != (model.model, model.adapter):
        raise CalibrationInvalid(
            f"the confidence gate is on, but its calibration was fitted on {_named(*fitted)} and the policy's model is "
            f"{_named(model.model, model.adapter)}; fit one of it with training.calibrate and name it in "
            "gate.confidence.calibration, or set gate.confidence.enabled to false"
        )
    if digest is not None and calibration.adapter_sha256 != digest:
        raise CalibrationInvalid(
            f"the confidence gate's calibration is of other weights of the adapter '{model.adapter}' than those "
            "gate.confidence.adapter_sha256 names; fit it anew"
        )


def _named(model: str, adapter: str | None) -> str:
    return f"'{model}' with adapter '{adapter}'" if adapter else f"'{model}'"
