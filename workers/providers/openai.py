"""OpenAI, vLLM and every server that speaks the Chat Completions API."""

from collections.abc import AsyncGenerator, Mapping
from typing import Final

import httpx2
from openai import AsyncOpenAI
from pydantic import JsonValue
from pydantic_core import to_json

from schemas.completions import CompletionRequest, Delta, Finish
from workers.providers.calling import call
from workers.providers.mapping import from_status
from workers.providers.reading import ChatChunks, read_answer
from workers.providers.wire import Wire, WireTransport

_SCHEMA_NAME: Final = "answer"


class OpenAIProvider:
    """Streams chat completions with output constrained to a JSON schema.

    The official client says where the server is, which key and which headers it gets; the request goes beside it.
    Through `chat.completions.create` a call of 50 chunks costs 12 times as much CPU, nearly 3 times if only the
    request goes that way and the bytes are read as here (`benchmarks/client.py`). It also would retry, and keep
    a stream open that its consumer has left; the wire does neither.

    `adapter` of a request takes the place of its model's name: that is how vLLM knows its LoRA adapters.
    """

    def __init__(self, *, name: str, wire: Wire, base_url: str | None, api_key: str, logprobs: bool = False) -> None:
        """Use `base_url`, or the official API where it is None. `logprobs` asks for those of the tokens."""
        self.name = name
        self._logprobs = logprobs
        # The official API pads its chunks unless told not to; others may refuse the word.
        self._stream_options = {"include_usage": True} | ({"include_obfuscation": False} if base_url is None else {})
        self._wire = wire
        self._client = AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=WireTransport(wire), trust_env=False),
        )
        self._url = f"{self._client.base_url}chat/completions"
        known = {**self._client.default_headers, **self._client.auth_headers}
        self._headers = {name: value for name, value in known.items() if isinstance(value, str)}

    def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta | Finish]:
        """Stream one completion; see `schemas.completions.Provider`."""
        return call(request, self._answer, provider=self.name)

    async def aclose(self) -> None:
        """Close the client; the wire stays open for others."""
        await self._client.close()

    async def _answer(self, request: CompletionRequest, headers: Mapping[str, str]) -> AsyncGenerator[Delta | Finish]:
        reply = await self._wire.send(
            "POST",
            self._url,
            headers={**self._headers, **headers},
            body=self._body(request),
            connect=request.clocks.connect,
        )
        try:
            if reply.status != 200:
                raise from_status(reply.status, await reply.read_error())
            reply.expect_events()
            async for item in read_answer(reply, ChatChunks()):
                yield item
        finally:
            reply.close()

    def _body(self, request: CompletionRequest) -> bytes:
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
        return to_json(body)


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
