"""What a request asks, whichever route it took."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

_AGENTS = re.compile(
    r"\b(discovery|support|technical[_ -]consultant|adaptive[_ -]response|content[_ -]generator)\b",
    re.IGNORECASE,
)
_CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)
_QUOTED = re.compile(r"^⟦message⟧\n(.*?)\n⟦end⟧$", re.DOTALL | re.MULTILINE)
_LABELLED = re.compile(r"^(system|user|human|visitor|assistant|agent|ai):[ \t]*", re.IGNORECASE | re.MULTILINE)


class ContentPart(BaseModel):
    """One part of a message whose content is a list; only text parts count here."""

    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None


class Message(BaseModel):
    """One message of a chat request."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """The message's words."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The parts of a request that choose its answer."""

    system: str
    question: str
    characters: int

    @property
    def agent(self) -> str | None:
        """The agent that the system prompt names first, with underscores; None if it names none."""
        named = _AGENTS.search(self.system)
        return re.sub(r"[ -]", "_", named[1].lower()) if named else None

    @property
    def wants_json(self) -> bool:
        """Whether the system prompt asks for JSON in words."""
        return "json" in self.system.lower()

    @property
    def tokens(self) -> int:
        """About how many tokens the prompt has: one for four characters."""
        return self.characters // 4 + 1


def from_messages(messages: Sequence[Message]) -> Prompt:
    """The prompt of a chat request."""
    system = "\n".join(message.text for message in messages if message.role in {"system", "developer"})
    question = next((message.text for message in reversed(messages) if message.role == "user"), "")
    return Prompt(system, _words(question), sum(len(message.text) for message in messages))


def from_text(inputs: str) -> Prompt:
    """The prompt of a native request: ChatML, else lines labelled `User:`, else all of it is the question."""
    turns = [(role.lower(), text) for role, text in _CHATML.findall(inputs)] or _labelled(inputs)
    system = "\n".join(text for role, text in turns if role == "system")
    asked = [text for role, text in turns if role in {"user", "human", "visitor"}]
    return Prompt(system, _words(asked[-1]) if asked else inputs, len(inputs))


def templated(messages: Sequence[Message]) -> str:
    """The messages as ChatML, ready for the assistant to go on."""
    said = "".join(f"<|im_start|>{message.role}\n{message.text}<|im_end|>\n" for message in messages)
    return said + "<|im_start|>assistant\n"


def _words(message: str) -> str:
    """The visitor's own words, where they are quoted among material."""
    quoted = _QUOTED.search(message)
    return quoted[1] if quoted else message


def _labelled(inputs: str) -> list[tuple[str, str]]:
    pieces: list[Any] = _LABELLED.split(inputs)
    return [(str(role).lower(), str(text)) for role, text in zip(pieces[1::2], pieces[2::2], strict=True)]
