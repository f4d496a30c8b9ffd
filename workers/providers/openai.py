"""OpenAI, vLLM and every server that speaks the Chat Completions API."""

from collections.abc import AsyncGenerator, Mapping
from typing import Final

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, AsyncStream, OpenAIError
from openai.types.chat import ChatCompletionChunk
from pydantic import JsonValue

from schemas.completions import BackendFailed, CompletionRequest, Delta, Finish, ProviderError
from workers.providers.calling import call
from workers.providers.mapping import from_status
from workers.providers.reading import ChatChunks, read_answer
from workers.providers.wire import Wire, event_stream

_SCHEMA_NAME: Final = "answer"


class OpenAIProvider:
    """Streams chat completions with output constrained to a JSON schema.

    `adapter` of a request takes the place of its model's name: that is how vLLM knows its LoRA adapters.
    """

    def __init__(self, *, name: str, wire: Wire, base_url: str | None, api_key: str, logprobs: bool = False) -> None:
        """Use `base_url`, or the official API where it is None. `logprobs` asks for those of the tokens."""
        self.name = name
        self._logprobs = logprobs
        # The official API pads its chunks unless told not to; others may refuse the word.
        self._stream_options = {"include_usage": True} | ({"include_obfuscation": False} if base_url is None else {})
        self._client = AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=wire, trust_env=False),
        )

    def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta | Finish]:
        """Stream one completion; see `schemas.completions.Provider`."""
        return call(request, self._answer, provider=self.name)

    async def aclose(self) -> None:
        """Close the client; the wire stays open for others."""
        await self._client.close()

    async def _answer(self, request: CompletionRequest, headers: Mapping[str, str]) -> AsyncGenerator[Delta | Finish]:
        response = await self._open(request, headers)
        try:
            async for item in read_answer(event_stream(response), ChatChunks()):
                yield item
        finally:
            await response.aclose()

    async def _open(self, request: CompletionRequest, headers: Mapping[str, str]) -> httpx2.Response:
        """Send the request and return the response once its headers say 200.

        `post` is the client's own way to a path, with its address, key, headers and status errors. It costs 0.6 of
        `chat.completions.create`, which first walks the whole body for types that ours has by construction; and
        the stream's objects are left alone: parsing them costs more than all the rest (`benchmarks/client.py`).
        """
        try:
            stream = await self._client.post(
                "/chat/completions",
                cast_to=ChatCompletionChunk,
                body=self._body(request),
                options={"headers": headers, "timeout": httpx2.Timeout(None, connect=request.clocks.connect)},
                stream=True,
                stream_cls=AsyncStream[ChatCompletionChunk],
            )
        except APIStatusError as error:
            raise from_status(error.status_code, error.response.content) from None
        except APIConnectionError as error:
            raise _cause(error) from None
        return stream.response

    def _body(self, request: CompletionRequest) -> dict[str, object]:
        body: dict[str, object] = {
            "model": request.adapter or request.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "max_completion_tokens": request.max_tokens,
            "temperature": request.temperature,
            "stream": True,
            "stream_options": self._stream_options,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": _SCHEMA_NAME, "strict": True, "schema": strict(request.json_schema)},
            },
        }
        if self._logprobs:
            body["logprobs"] = True
        return body


def strict(schema: JsonValue) -> JsonValue:
    """Return `schema` as strict mode wants it: of every object all properties required and no others allowed."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {key: strict(value) for key, value in schema.items()}
    shape: dict[str, JsonValue] = {key: strict(value) for key, value in schema.items() if key != "properties"}
    shape["properties"] = {name: strict(value) for name, value in properties.items()}
    shape["required"] = list(properties)
    shape["additionalProperties"] = False
    return shape


def _cause(error: OpenAIError) -> ProviderError:
    """Return the wire's own error, which the client wraps in one of its."""
    if isinstance(error.__cause__, ProviderError):
        return error.__cause__
    return BackendFailed("the model client could not send the request; look at the model's settings")
