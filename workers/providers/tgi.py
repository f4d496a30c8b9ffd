"""Text Generation Inference, by its native route: token logprobs, LoRA adapters, grammars."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextvars import ContextVar
from typing import Final, TypeAlias

import httpx2
from huggingface_hub import (
    AsyncInferenceClient,
    TextGenerationInputGrammarType,
    TextGenerationOutput,
    set_async_client_factory,
)

from schemas.completions import (
    BackendFailed,
    CompletionRequest,
    Delta,
    Finish,
    InvalidRequest,
    Malformed,
    Message,
    TimedOut,
)
from workers.providers.calling import call
from workers.providers.chatml import chatml
from workers.providers.mapping import from_status
from workers.providers.reading import TgiEvents, read_answer
from workers.providers.wire import Reply, Wire, WireTransport, reply_of

CANARY_SECONDS: Final = 20.0
"""For one canary answer; the first use of an adapter may load it."""

_CANARY: Final = (Message("user", "Hello, we are looking for a better way to answer our customers."),)
_CANARY_TOKENS: Final = 12
_SAME: Final = 0.05
"""Log-probabilities of one model on one prompt differ by less between two calls (batching, bf16)."""

Scored: TypeAlias = tuple[tuple[int, float], ...]
"""Token ids and their log-probabilities."""


class TgiProvider:
    """Streams through `AsyncInferenceClient`, one client a call: a client holds on to every stream it opened.

    The client knows the address, the headers and the shape of the request. Its objects are left alone, and so is its
    usual transport, which loads the system's certificates anew for each client: both together cost 37 times as much
    CPU as reading the bytes of the response it opened over the process's wire (`benchmarks/client.py`).
    """

    def __init__(
        self,
        *,
        name: str,
        wire: Wire,
        base_url: str,
        api_key: str = "-",
        known_adapters: Iterable[str] = (),
    ) -> None:
        """Use the server at `base_url`; refuse adapters that are not `known_adapters`."""
        self.name = name
        self._wire = wire
        self._base_url = base_url
        # Never empty: without a key of ours the client would send the machine's Hugging Face token.
        self._api_key = api_key or "-"
        self._known = frozenset(known_adapters)
        set_async_client_factory(_make_client)

    def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta | Finish]:
        """Stream one completion; see `schemas.completions.Provider`."""
        return call(request, self._answer, provider=self.name)

    async def aclose(self) -> None:
        """Close nothing: a client lives as long as its call, and the wire belongs to others too."""

    async def canary(self) -> None:
        """Ask the base model and every adapter the same; an adapter that answers just as the base is not loaded.

        TGI runs the base model for a name it does not know and says nothing, so only its words can tell.

        Raises:
            InvalidRequest: naming such an adapter.
            ProviderError: a call failed.
        """
        base = await self._scored(None)
        for adapter in sorted(self._known):
            if _same(base, await self._scored(adapter)):
                raise InvalidRequest(
                    f"the model server answers for adapter '{adapter}' exactly as for none; is it in LORA_ADAPTERS?"
                )

    async def _answer(self, request: CompletionRequest, headers: Mapping[str, str]) -> AsyncGenerator[Delta | Finish]:
        if request.adapter is not None and request.adapter not in self._known:
            raise InvalidRequest(
                f"adapter '{request.adapter}' is in no model of the policy; TGI would run the base model silently"
            )
        async with self._client(request.clocks.connect, headers) as client:
            reply = await self._open(client, request)
            reply.expect_events()
            async for item in read_answer(reply, TgiEvents()):
                yield item

    async def _open(self, client: AsyncInferenceClient, request: CompletionRequest) -> Reply:
        """Send the request and return the reply once its headers say 200."""
        seat = _Seat(self._wire)
        seated = _SEAT.set(seat)
        try:
            await client.text_generation(
                chatml(request.messages),
                stream=True,
                details=True,
                adapter_id=request.adapter,
                grammar=TextGenerationInputGrammarType(type="json", value=request.json_schema),
                max_new_tokens=request.max_tokens,
                temperature=request.temperature,
                do_sample=True,
                return_full_text=False,
            )
        finally:
            _SEAT.reset(seated)
        return seat.taken()

    async def _scored(self, adapter: str | None) -> Scored:
        seated = _SEAT.set(_Seat(self._wire))
        try:
            async with asyncio.timeout(CANARY_SECONDS), self._client(CANARY_SECONDS, {}) as client:
                answer = await client.text_generation(
                    chatml(_CANARY),
                    details=True,
                    adapter_id=adapter,
                    max_new_tokens=_CANARY_TOKENS,
                    do_sample=False,
                    return_full_text=False,
                )
            return _scored(answer)
        except TimeoutError:
            raise TimedOut(f"the model server gave no canary answer within {CANARY_SECONDS:g} s") from None
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Malformed("the canary's answer is not one of TGI; is the address such a server's?") from None
        finally:
            _SEAT.reset(seated)

    def _client(self, connect: float, headers: Mapping[str, str]) -> AsyncInferenceClient:
        # The wire takes the seconds as those to connect; the other clocks are not the client's.
        return AsyncInferenceClient(
            base_url=self._base_url, api_key=self._api_key, timeout=connect, headers=dict(headers)
        )


class _Seat:
    """Holds the response of one client: the client itself gives out no more than parsed objects."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._reply: Reply | None = None

    def make_client(self) -> httpx2.AsyncClient:
        """Return what the official client will send its request through."""
        return httpx2.AsyncClient(
            transport=WireTransport(self._wire), trust_env=False, event_hooks={"response": [self._take]}
        )

    def taken(self) -> Reply:
        """Return the reply that came."""
        if self._reply is None:
            raise BackendFailed("the model client sent no request; look at the model server's base URL")
        return self._reply

    async def _take(self, response: httpx2.Response) -> None:
        # Raised here, before the client sees the status: to some of 400 it would answer with a second request.
        if response.status_code != 200:
            raise from_status(response.status_code, await reply_of(response).read_error())
        self._reply = reply_of(response)


_SEAT: ContextVar[_Seat | None] = ContextVar("fairlead_tgi_seat", default=None)


def _make_client() -> httpx2.AsyncClient:
    """Make the transport of an `AsyncInferenceClient`: ours within our calls, for others an ordinary one."""
    seat = _SEAT.get()
    return httpx2.AsyncClient(follow_redirects=True, timeout=None) if seat is None else seat.make_client()


def _scored(answer: TextGenerationOutput) -> Scored:
    if answer.details is None or not answer.details.tokens:
        raise ValueError("no tokens")
    return tuple((token.id, token.logprob) for token in answer.details.tokens)


def _same(one: Scored, other: Scored) -> bool:
    return [i for i, _ in one] == [i for i, _ in other] and all(
        abs(a - b) < _SAME for (_, a), (_, b) in zip(one, other, strict=True)
    )
