"""How a message is looked up in its tenant's knowledge base, as policy."""

import math

from pydantic import BaseModel, ConfigDict, Field


class Certainty(BaseModel):
    """How sure it is that what was found holds an answer: a logistic function, calibrated by the retrieval bench."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bias: float
    covered: float
    """For the share of what the question's words tell that the best passage has."""
    nearness: float = 0.0
    """For the cosine of question and nearest passage."""

    def of(self, covered: float, nearness: float) -> float:
        """Return the probability."""
        return 1 / (1 + math.exp(-(self.bias + self.covered * covered + self.nearness * nearness)))


class KnowledgePolicy(BaseModel):
    """How knowledge bases are searched. Times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deadline: float = Field(default=1.5, gt=0)
    """For one message; what is not found by then is not waited for."""
    passages: int = Field(default=5, ge=1, le=20)
    """Told to an agent at most."""
    remember: float = Field(default=5, ge=0)
    """How long it is believed what a tenant's knowledge base is, or that there is none."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Certainty from which a message counts as answerable."""
    alike: float = Field(default=0.7, gt=0, le=1)
    """Share of a written question's words from which its answer goes before all documents."""
    fitted: Certainty = Certainty(bias=-4.2, covered=3.4, nearness=3.8)
    """With the embedded default's vectors."""
    endpoint: Certainty = Certainty(bias=-4.8, covered=3.0, nearness=5.0)
    """With an endpoint's vectors; of one model, and they differ from model to model: look at your own questions."""
    words: Certainty = Certainty(bias=-2.8, covered=4.1)
    """Without vectors."""
