"""The policy's section on what answers must keep to, beside their shape."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class AnswerPolicy(BaseModel):
    """Rules that are checked by counting, whatever model writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overlap: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of an adaptive answer's runs of words that earlier answers had: from there on it only rephrases them."""
    overlap_words: Annotated[int, Field(ge=2, le=12)] = 3
    """Words in such a run."""
    leak_words: Annotated[int, Field(ge=5, le=50)] = 10
    """So many words in a row of an agent's instructions are a leak: the answer ends before the last of them."""
    lookups: Annotated[int, Field(ge=1, le=8)] = 4
    """Parts of one technical question that are looked up each by itself."""
    lookup_seconds: Annotated[float, Field(gt=0, le=10)] = 1.5
    """For all of them together; what is not back by then is left out."""
