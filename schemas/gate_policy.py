"""How much of an answer is held back until it is judged, and from which confidence on it is shown at all."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from schemas.agents import Agent
from schemas.briefs import Share

Hold: TypeAlias = Literal["decision", "sentence", "answer"]
"""What must be there before anything of it is shown.

`decision`: what the answer is about, its first key. `sentence`: each sentence, whole and checked. `answer`: all of it.
"""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ConfidencePolicy(_Frozen):
    """The confidence from which a primary's decision is shown; below it the fallback answers."""

    enabled: bool = False
    threshold: Share = 0.85
    """Calibrated: of the decisions with this confidence, such a share is right."""
    calibration: str | None = None
    """The file of the model's calibration; the one shipped with the package, which is the simulator's, when absent."""
    adapter_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of the adapter's weights: the calibration must be of the very same ones. Names alone decide when absent."""


class GatePolicy(_Frozen):
    """What a visitor gets to see, and when."""

    hold: dict[Agent, Hold] = Field(default_factory=dict[Agent, Hold])
    """By agent; `sentence` for those not named, so that nobody sees a promise that no agent may make."""
    longest: int = Field(default=60, ge=20, le=400)
    """Words of a discovery answer; what is longer is ended with a written question."""
    confidence: ConfidencePolicy = ConfidencePolicy()

    def hold_of(self, agent: Agent, *, careful: bool) -> Hold:
        """Return what is held back; `careful` holds sentences whatever the agent."""
        hold = self.hold.get(agent, "sentence")
        return "sentence" if careful and hold == "decision" else hold
