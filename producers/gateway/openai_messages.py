"""The shapes of OpenAI's chat completions, as far as they mean something here. Unknown parameters are ignored."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.turns import MAX_HISTORY, HistoryMessage, MessageText

MAX_MESSAGES: Final = 2_000


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ContentPart(_Lenient):
    """A piece of a message. Only text is read."""

    type: str
    text: str | None = None


class ChatMessage(_Lenient):
    """One message of the conversation so far."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """The text of the message, its parts joined."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content if part.type == "text")
        return self.content or ""


class StreamOptions(_Lenient):
    """What else to stream."""

    include_usage: bool = False


class ChatCompletionRequest(BaseModel):
    """The body of `POST /v1/chat/completions`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [{"model": "fairlead", "messages": [{"role": "user", "content": "Hi, what do you do?"}]}]
        },
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: str = "fairlead"
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    metadata: dict[str, JsonValue] | None = None


class UserText(BaseModel):
    """The last user message, checked like any other message."""

    text: MessageText


def split_messages(messages: list[ChatMessage]) -> tuple[str, list[HistoryMessage]]:
    """Return the last user message, and what was said before it, oldest first.

    System and tool messages are left out: this installation's agents have their own instructions.

    Raises:
        ValueError: there is no user message, or an earlier message is too long.
    """
    last = next((i for i in reversed(range(len(messages))) if messages[i].role == "user"), None)
    if last is None:
        raise ValueError("send at least one message with the role 'user'")
    earlier = [
        HistoryMessage(role="user" if message.role == "user" else "assistant", text=message.text)
        for message in messages[:last]
        if message.role in ("user", "assistant") and message.text
    ]
    return messages[last].text, earlier[-MAX_HISTORY:]


class Usage(BaseModel):
    """Tokens of all model calls of the turn, as far as the model servers told."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one choice there is."""

    index: int = 0
    message: AssistantMessage
    finish_reason: str
    logprobs: None = None


class FairleadExtra(BaseModel):
    """What OpenAI's shape has no place for."""

    turn_id: str
    conversation_id: str
    seq: int
    phase: str


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    fairlead: FairleadExtra


class Model(BaseModel):
    """A model a client may name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """Every model there is."""

    object: Literal["list"] = "list"
    data: list[Model]
