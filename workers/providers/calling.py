"""What every model call has around it: its clocks and its span."""

from collections.abc import AsyncGenerator, Callable, Mapping

from schemas.completions import CompletionRequest, Delta, Finish, ProviderError
from workers.providers.clocks import keep_time
from workers.providers.mapping import headers
from workers.providers.telemetry import CallSpan

Answering = Callable[[CompletionRequest, Mapping[str, str]], AsyncGenerator[Delta | Finish]]
"""The bare call: the request and the headers to send along."""


async def call(request: CompletionRequest, answer: Answering, *, provider: str) -> AsyncGenerator[Delta | Finish]:
    """Yield what `answer` gives, within the request's clocks and one span.

    Raises:
        ProviderError: nothing else; a consumer's own cancellation passes through.
    """
    span = CallSpan(request, provider=provider)
    items = keep_time(answer(request, headers(request) | span.headers()), request.clocks)
    try:
        async for item in items:
            span.saw(item)
            yield item
    except ProviderError as error:
        span.failed(error)
        raise
    except BaseException:
        span.abandoned()
        raise
    finally:
        await items.aclose()
        span.end()
