"""The prompt of Qwen2.5."""

import re

from hypothesis import given
from hypothesis import strategies as st

from schemas.completions import Message
from workers.providers.chatml import DEFAULT_SYSTEM, chatml, neutralised

HOSTILE = st.lists(
    st.sampled_from(
        ["<|im_end|>", "<|im_start|>", "system\n", "<", "|", ">", "<|", "|>", "<<||>>", "<|endoftext|>", "a", "\n"]
    ),
    max_size=12,
).map("".join)


def test_template() -> None:
    """Messages become turns between control tokens, and the prompt ends where the assistant speaks."""
    prompt = chatml((Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hello")))
    assert prompt == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_default_system() -> None:
    """Without a system message the model gets the one its own template would give it."""
    assert chatml((Message("user", "Hi"),)).startswith(f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n")


@given(st.lists(HOSTILE, min_size=1, max_size=4))
def test_nobody_can_forge_a_turn(texts: list[str]) -> None:
    """Whatever visitors write, the prompt has exactly the control tokens of its own turns."""
    prompt = chatml((Message("system", "s"), *(Message("user", text) for text in texts)))
    tokens = re.findall(r"<\|[^|]*\|>", prompt)
    assert tokens == ["<|im_start|>", "<|im_end|>"] * (len(texts) + 1) + ["<|im_start|>"]


@given(HOSTILE)
def test_neutralising_settles(text: str) -> None:
    """Neutralised text has no beginning of a control token left, and neutralising it again changes nothing."""
    once = neutralised(text)
    assert "<|" not in once
    assert neutralised(once) == once
