"""Untrusted text made fit to stand in a prompt: it can end no quotation, begin none, and hold nothing unseen.

Quotations stand between `⟦label⟧` and `⟦end⟧`. Neither bracket, nor any sign that looks like it, is left in what is
quoted, so only we can write such a line. What chat templates of model servers read as control tokens is taken apart,
because many servers recognise them inside a message's text too.
"""

import re
from typing import Final

OPEN: Final = "⟦"
CLOSE: Final = "⟧"
END: Final = f"{OPEN}end{CLOSE}"

_BREAKS: Final = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Control characters, marks that turn the direction of writing, signs without width, and the blocks in which whole
# messages can be hidden (tags, variation selectors). What scripts and emoji need of them stays: U+200C, U+200D, U+FE0F.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_BRACKETS: Final = str.maketrans({"⟦": "[", "⟧": "]", "〚": "[", "〛": "]", "⦋": "[", "⦌": "]", "⁅": "[", "⁆": "]"})
_CONTROL_TOKEN: Final = re.compile(
    r"<(?=[|｜])|(?<=[|｜])>|<(?=/?(?:s|bos|eos|pad|unk|think|tool_call|tool_response|(?:start|end)_of_turn)>)"
    r"|<(?=</?SYS>>)|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])",
    re.IGNORECASE,
)


def neutral(text: str) -> str:
    """Return untrusted text without brackets of ours, control tokens and characters nobody can see."""
    text = _UNSEEN.sub("", _BREAKS.sub("\n", text)).translate(_BRACKETS)
    return _CONTROL_TOKEN.sub(lambda found: " >" if found[0] == ">" else f"{found[0]} ", text)


def line(text: str) -> str:
    """Return untrusted text as one neutral line."""
    return " ".join(neutral(text).split())


def quoted(label: str, text: str) -> str:
    """Return untrusted text as a quotation under a label of ours."""
    return block(label, neutral(text))


def block(label: str, text: str) -> str:
    """Return text of ours, or neutral text, between the brackets."""
    return f"{OPEN}{label}{CLOSE}\n{text}\n{END}"
