"""A prompt never has more tokens than its agent's budget."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.claims import claim_of
from infra.postgres.inbox import PastTurn
from schemas.agents import Agent
from simulators.answers import tokenise
from workers.agents.prompt import build_prompt
from workers.agents.quoting import neutral
from workers.agents.tokens import clipped, estimated_tokens

BUDGET = 3600

CLAIM = claim_of(Agent.DISCOVERY, "Hello")

_ALPHABETS = ("abc xyz ETA", "0123456789", "!?#@{}<>", " \n\t", "äéñ", "漢字かな", "😀🎉", "aB9+/=")


def _repeated(letters: str, length: int) -> str:
    return (letters * length)[:length]


def _sent(text: str) -> str:
    return text.replace("\x00", "")[:16_000]


ANY: st.SearchStrategy[str] = st.one_of(
    st.text(max_size=300),
    st.builds(_repeated, st.text(min_size=1, max_size=30), st.integers(1, 9_000)),
    st.builds(_repeated, st.sampled_from(_ALPHABETS), st.integers(1, 16_000)),
)
TEXT = ANY.map(_sent)


def _real(text: str) -> int:
    return len(tokenise(text)) + 5


@given(TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=12))
@settings(deadline=None, max_examples=60)
def test_the_budget_holds(text: str, past: list[tuple[str, str]]) -> None:
    """Whatever was said, system, ten pairs at most and the message take 3,600 tokens at most, newest kept."""
    turns = tuple(PastTurn(asked, shown, Agent.DISCOVERY) for asked, shown in past)
    claim = replace(CLAIM, text=text, past=turns)
    for count in (estimated_tokens, _real):
        prompt = build_prompt(claim, input_tokens=BUDGET, history_turns=10, count=count)
        assert sum(_real(message.content) for message in prompt.messages) + 3 <= BUDGET + (3 if count is _real else 0)
        assert sum(count(message.content) for message in prompt.messages) <= BUDGET
        assert len(prompt.messages) <= 2 + 2 * 10
        assert prompt.messages[0].role == "system"
        kept = [neutral(turn.asked) for turn in turns[-10:][prompt.turns_cut :]]
        assert [m.content for m in prompt.messages[1:-1] if m.role == "user"] == [asked for asked in kept if asked]


@pytest.mark.parametrize("alphabet", _ALPHABETS)
def test_a_message_too_long_for_all_keeps_its_ends(alphabet: str) -> None:
    """The middle of a message that alone is too long is left out; what is short enough stays as it is."""
    text = "BEGIN " + (alphabet * 16_000)[:16_000] + " END"
    cut = clipped(text, 500, estimated_tokens)
    assert estimated_tokens(cut) <= 500
    assert cut.startswith("BEGIN")
    assert cut.endswith(" END")
    assert clipped("short", 500, estimated_tokens) == "short"
