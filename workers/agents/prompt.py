"""Instructions, past turns and the new message, within the agent's budget."""

from dataclasses import dataclass

from infra.postgres.claims import Claim
from schemas.completions import Message
from workers.agents.artefact import artefact
from workers.agents.tokens import Count, clipped, estimated_tokens
from workers.answers.sanitise import to_text


@dataclass(frozen=True, slots=True)
class Prompt:
    """What goes to the model."""

    messages: tuple[Message, ...]
    turns_cut: int
    """Past turns left out because the budget was full; recorded with the attempt."""


def build_prompt(claim: Claim, *, input_tokens: int, history_turns: int, count: Count = estimated_tokens) -> Prompt:
    """Return the messages for this turn: the oldest turns are cut first, then the middle of a message too long for all.

    Args:
        claim: the turn with its past.
        input_tokens: the agent's budget.
        history_turns: how many past turns (a question and its answer each) are wanted at most.
        count: tokens of one message.
    """
    system = Message("system", artefact(claim.agent).system)
    room = input_tokens - count(system.content)
    asked = Message("user", clipped(claim.text, room, count))
    room -= count(asked.content)

    past = [_as_messages(turn.asked, to_text(turn.shown_html)) for turn in claim.past]
    if not past:
        past = [(Message("user" if role == "user" else "assistant", text),) for role, text in claim.brought]
        history_turns *= 2
    wanted = past[-history_turns:] if history_turns else []

    kept: list[Message] = []
    taken = 0
    for messages in reversed(wanted):
        room -= sum(count(message.content) for message in messages)
        if room < 0:
            break
        kept[:0] = messages
        taken += 1
    return Prompt((system, *kept, asked), turns_cut=len(past) - taken)


def _as_messages(asked: str, shown: str) -> tuple[Message, ...]:
    return (Message("user", asked), Message("assistant", shown)) if shown else (Message("user", asked),)
