"""What TGI's routes read, and what the router refuses."""

from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from simulators.prompts import Message, Prompt
from simulators.shapes import Schema

MAX_INPUT_TOKENS = 8192
MAX_TOTAL_TOKENS = 10240


Body = TypeVar("Body", bound=BaseModel)

_TAGS = {"json", "json_object", "json_schema", "regex"}
"""Kinds of grammar: pydantic names them in the place of an error, the router does not."""


class _Lenient(BaseModel):
    """Fields nobody knows are ignored, as the router does."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class JsonGrammar(_Lenient):
    """Output that follows a JSON schema."""

    type: Literal["json", "json_object"]
    value: JsonValue


class RegexGrammar(_Lenient):
    """Output that matches a regular expression."""

    type: Literal["regex"]
    value: str


class NamedSchema(_Lenient):
    """A JSON schema with a name."""

    name: str | None = None
    schema_: Schema = Field(alias="schema")


class JsonSchemaGrammar(_Lenient):
    """Output that follows a named JSON schema."""

    type: Literal["json_schema"]
    value: NamedSchema


Grammar: TypeAlias = Annotated[JsonGrammar | RegexGrammar | JsonSchemaGrammar, Field(discriminator="type")]


class Parameters(_Lenient):
    """The `parameters` of a native request that the simulator looks at."""

    best_of: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_n_tokens: int | None = None
    max_new_tokens: int | None = None
    return_full_text: bool | None = None
    stop: list[str] = Field(default_factory=list)
    details: bool = False
    decoder_input_details: bool = False
    seed: int | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None


class GenerateBody(_Lenient):
    """The body of `/generate`, `/generate_stream` and `/`."""

    inputs: str
    parameters: Parameters = Field(default_factory=Parameters)
    stream: bool = False


class StreamOptions(_Lenient):
    """What else a chat stream should carry."""

    include_usage: bool = False


class ChatBody(_Lenient):
    """The body of `/v1/chat/completions`."""

    messages: list[Message]
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: list[float] | None = None
    stop: list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    seed: int | None = None
    tools: list[JsonValue] | None = None
    response_format: Grammar | None = None


class RefusedError(Exception):
    """The router does not accept the request. The message is the one it gives.

    Validation happens inside a stream, where there is one; `early` refusals come before it, as an HTTP status.
    """

    def __init__(self, error: str, *, error_type: str = "validation", early: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.error_type = error_type
        self.early = early


class UnreadableError(Exception):
    """The body is not the JSON the route reads. The message is answered in plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def read_body(content_type: str, text: bytes, shape: type[Body]) -> Body:
    """A request's body as `shape`; raises `UnreadableError` in the words of the router's framework."""
    if content_type != "application/json":
        raise UnreadableError(415, "Expected request with `Content-Type: application/json`")
    try:
        return shape.model_validate_json(text)
    except ValidationError as error:
        raise _unreadable(error, len(text)) from None


def _unreadable(error: ValidationError, length: int) -> UnreadableError:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return UnreadableError(
            400, f"Failed to parse the request body as JSON: {first['msg']} at line 1 column {length}"
        )
    *outer, field = [str(step) for step in first["loc"] if step not in _TAGS] or ["body"]
    if first["type"] == "missing":
        what = f"{'.'.join(outer)}: missing field `{field}`" if outer else f"missing field `{field}`"
    else:
        what = f"{'.'.join([*outer, field])}: {first['msg']}"
    lead = "Failed to deserialize the JSON body into the target type"
    return UnreadableError(422, f"{lead}: {what} at line 1 column {length}")


def check_length(prompt: Prompt, most: int | None) -> None:
    """Refuse more tokens than the model has room for."""
    tokens = prompt.tokens
    if tokens > MAX_INPUT_TOKENS:
        raise RefusedError(
            f"Input validation error: `inputs` must have less than {MAX_INPUT_TOKENS} tokens. Given: {tokens}"
        )
    if most is not None and tokens + most > MAX_TOTAL_TOKENS:
        raise RefusedError(
            f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {MAX_TOTAL_TOKENS}. "
            f"Given: {tokens} `inputs` tokens and {most} `max_new_tokens`"
        )


def check_parameters(body: GenerateBody, *, stream: bool) -> None:
    """Refuse what the router's validation refuses."""
    given = body.parameters
    checks = [
        (not body.inputs, "`inputs` cannot be empty"),
        (given.temperature is not None and given.temperature <= 0, "`temperature` must be strictly positive"),
        (given.top_p is not None and not 0 < given.top_p < 1, "`top_p` must be > 0.0 and < 1.0"),
        (len(given.stop) > 4, f"`stop` supports up to 4 stop sequences. Given: {len(given.stop)}"),
        ((given.top_n_tokens or 0) > 5, f"`top_n_tokens` must be >= 0 and <= 5. Given: {given.top_n_tokens}"),
        (
            given.max_new_tokens is not None and given.max_new_tokens <= 0,
            "`max_new_tokens` must be strictly positive",
        ),
        (stream and (given.best_of or 1) != 1, "`best_of` != 1 is not supported when streaming tokens"),
        (
            stream and given.decoder_input_details,
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
    ]
    for wrong, why in checks:
        if wrong:
            raise RefusedError(f"Input validation error: {why}")


def check_chat(body: ChatBody) -> None:
    """Refuse what the router refuses of a chat."""
    if body.tools and body.response_format:
        raise RefusedError("Tool error: Grammar and tools are mutually exclusive", error_type="tool_error", early=True)
    if len(body.stop or ()) > 4:
        raise RefusedError(
            f"Input validation error: `stop` supports up to 4 stop sequences. Given: {len(body.stop or ())}"
        )
    if body.top_p is not None and not 0 < body.top_p < 1:
        raise RefusedError("Input validation error: `top_p` must be > 0.0 and < 1.0")
