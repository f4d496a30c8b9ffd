"""Answering dead letters anew: how, and what becomes of each."""

from typing import Final, Literal

ReplayMode = Literal["shadow", "deliver", "compare"]
"""`shadow` answers into the record, `compare` sets that beside the old answer, `deliver` shows it to the visitor."""

Outcome = Literal[
    "answer",
    "already_answered",
    "discarded",
    "obsolete",
    "moved_on",
    "taken_over",
    "never_a_turn",
    "replayed_too_often",
    "being_replayed",
    "still_open",
    "gone",
]
"""What a job does with a dead letter. All but `answer` and, when delivering, `never_a_turn` leave it alone:
`moved_on` and `obsolete`: the visitor wrote on and was answered; `taken_over`: a person has the conversation;
`being_replayed`: another job is at it;
`still_open`: its turn has not ended; `gone`: its turn is no longer kept."""

MAX_REPLAYS: Final = 3
"""So often a letter is delivered in vain at most."""

REPLAY_PREFIX: Final = "replay."
"""How the conversations begin in which answers stand that nobody is shown."""


def reserved(conversation: str) -> bool:
    """Tell whether a conversation's id is one that only replays may have."""
    return conversation.startswith(REPLAY_PREFIX)
