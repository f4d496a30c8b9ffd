"""The prompt of Qwen2.5: ChatML, in which nobody's words can pass for control tokens."""

from collections.abc import Sequence
from typing import Final

from schemas.completions import Message

DEFAULT_SYSTEM: Final = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
"""What the model's own template says where there is no system message; the model was trained with it."""


def chatml(messages: Sequence[Message]) -> str:
    """Return `messages` as one prompt that ends where the assistant begins to speak."""
    if not messages or messages[0].role != "system":
        messages = (Message("system", DEFAULT_SYSTEM), *messages)
    turns = [f"<|im_start|>{m.role}\n{neutralised(m.content)}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def neutralised(text: str) -> str:
    """Return `text` without the two characters that begin every control token: `<|im_end|>`, `<|endoftext|>`, any.

    A space between them is enough, for the tokeniser knows such tokens only letter by letter.
    """
    return text.replace("<|", "< |")
