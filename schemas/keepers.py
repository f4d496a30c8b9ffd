"""Who answers a conversation: agents, or a person who took it over."""

from typing import Annotated, Final, Literal

from pydantic import Field

Keeper = Literal["agent", "human"]
"""Whose turn it is to answer, for the whole conversation."""

TAKEN_OVER: Final = "taken_over"
"""Reason of a turn that no agent may answer, as a person has its conversation."""

PersonName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A person as colleagues know them."""

TakeoverReason = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]
"""Told to whoever looks; never text of a visitor."""
