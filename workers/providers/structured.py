"""One question, one JSON object of a given shape: how the orchestrator asks the frontier. Not streamed, not retried."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final, cast

import httpx2
import jiter
from openai import AsyncOpenAI
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from pydantic import JsonValue
from pydantic_core import to_json

from infra.settings import Settings
from schemas.completions import Malformed, Message, ProviderError, TimedOut
from schemas.ids import TurnId
from workers.providers.mapping import from_status
from workers.providers.openai import strict
from workers.providers.wire import Wire, WireTransport

H_ROUTING: Final = "X-Fairlead-Routing"
"""Names the turn that is being routed. An answer has another header, so that nobody who counts answers counts this."""

_NO_KEY: Final = "-"
_MOST_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the shape of what comes back."""

    turn_id: TurnId
    model: str
    messages: tuple[Message, ...]
    name: str
    """Of the shape."""
    json_schema: dict[str, JsonValue] = field(repr=False)
    max_tokens: int
    connect: float
    """Seconds to connect."""
    total: float
    """Seconds for all of it."""


class Structured:
    """The frontier's client for questions. The address, its key and headers are the official client's."""

    def __init__(self, settings: Settings) -> None:
        """Use the frontier of the settings, which must be served; connects to nothing yet."""
        url, key = settings.frontier_base_url, settings.frontier_api_key.get_secret_value()
        self._wire = Wire()
        self._client = AsyncOpenAI(
            api_key=key or _NO_KEY,
            base_url=_v1(url) if url else None,
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=WireTransport(self._wire), trust_env=False),
        )
        self._url = f"{self._client.base_url}chat/completions"
        known = {**self._client.default_headers, **self._client.auth_headers}
        self._headers = {name: value for name, value in known.items() if isinstance(value, str)}

    async def ask(self, question: Question) -> bytes:
        """Return the JSON text that the model wrote.

        Raises:
            ProviderError: nothing else; `TimedOut` when `total` was not enough.
        """
        with trace.get_tracer("fairlead.providers").start_as_current_span(
            f"chat {question.model}",
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": question.model,
                "gen_ai.request.max_tokens": question.max_tokens,
                "fairlead.turn.id": question.turn_id,
                "fairlead.purpose": question.name,
            },
        ) as span:
            started = time.perf_counter()
            try:
                async with asyncio.timeout(question.total):
                    return await self._ask(question)
            except TimeoutError:
                error = TimedOut(f"the model server did not answer within {question.total:g} s")
            except ProviderError as failed:
                error = failed
            span.set_attribute("error.type", error.code)
            span.set_status(Status(StatusCode.ERROR, f"{error} ({time.perf_counter() - started:.1f} s)"))
            raise error

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.close()
        await self._wire.aclose()

    async def _ask(self, question: Question) -> bytes:
        reply = await self._wire.send(
            "POST",
            self._url,
            headers={**self._headers, H_ROUTING: question.turn_id},
            body=_body(question),
            connect=question.connect,
        )
        try:
            if reply.status != 200:
                raise from_status(reply.status, await reply.read_error())
            body = b""
            while data := await reply.read():
                body += data
                if len(body) > _MOST_BYTES:
                    raise Malformed("the model server's answer is longer than any of the shape that was asked for")
        finally:
            reply.close()
        return _content(body)


def _body(question: Question) -> bytes:
    return to_json(
        {
            "model": question.model,
            "messages": [{"role": m.role, "content": m.content} for m in question.messages],
            "max_completion_tokens": question.max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": question.name, "strict": True, "schema": strict(question.json_schema)},
            },
        }
    )


def _content(body: bytes) -> bytes:
    """Return what the model wrote, of a whole chat completion that ended by itself."""
    try:
        answer = cast("dict[str, list[dict[str, object]]]", jiter.from_json(body))
        choice = answer["choices"][0]
        content = cast("dict[str, object]", choice["message"])["content"]
        reason = choice["finish_reason"]
    except (ValueError, LookupError, TypeError):
        raise Malformed("the model server's answer is no chat completion; is the address such a server's?") from None
    if not isinstance(content, str) or reason != "stop":
        raise Malformed("the model did not write its answer to the end; look at its limits and refusals")
    return content.encode()


def _v1(url: str) -> str:
    """Return `url` with the API's usual path if it has none, as for answers."""
    return url if httpx2.URL(url).path.strip("/") else url.rstrip("/") + "/v1"
