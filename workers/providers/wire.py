"""One HTTP session under every official model client of a process, on aiohttp."""

from collections.abc import AsyncIterator
from typing import Final, Protocol, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2

from schemas.completions import Incomplete, Malformed, ProviderError, TimedOut, Unavailable

KEEPALIVE_SECONDS: Final = 4.0
"""Below the 5 s after which uvicorn (vLLM, proxies) hangs up: a request must not meet a connection just closed."""

_BODY: Final = "fairlead.body"


class Body(Protocol):
    """The bytes of a response, as they arrive."""

    async def read(self) -> bytes:
        """Return what has arrived, waiting for something; empty at the end."""
        ...


class Wire(httpx2.AsyncBaseTransport):
    """An httpx2 transport whose responses carry their body's reader, as httpcore's carry their socket.

    The official clients build requests and judge statuses through httpx2; the bytes of an answer then go from
    aiohttp's parser to our decoder without the four generators between (`benchmarks/client.py` has the figures).
    One request is one request: no redirects, no retries, and closing a response hangs up at once.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request` and return the response once its headers are here.

        Raises:
            Unavailable: nobody answers at the address, or the connection closed before a status line.
            TimedOut: the connection was not made in time.
        """
        url = str(request.url)
        waits = cast("dict[str, float | None]", request.extensions.get("timeout", {}))
        try:
            reply = await self._open().request(
                request.method,
                url,
                headers=request.headers.multi_items(),
                data=request.content or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=waits.get("connect")),
                proxy=self._proxy(request.url),
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise unreachable(error, request.url) from error
        return httpx2.Response(
            reply.status,
            # aiohttp undoes any compression, so nobody must try again.
            headers=[(k, v) for k, v in reply.raw_headers if k.lower() != b"content-encoding"],
            stream=(body := _AiohttpBody(reply)),
            request=request,
            extensions={_BODY: body},
        )

    async def aclose(self) -> None:
        """Leave the session open: an official client closes its transport, and this one is shared."""

    async def shut(self) -> None:
        """Close the session and every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No limit of connections: a worker's capacity is the limit, and a hidden queue here would eat its clocks.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _proxy(self, url: httpx2.URL) -> str | None:
        """Return the proxy that the environment names for `url`; looked up once per host."""
        origin = f"{url.scheme}://{url.host}"
        if origin not in self._proxies:
            self._proxies[origin] = None if proxy_bypass(url.host) else getproxies().get(url.scheme)
        return self._proxies[origin]


class _AiohttpBody(httpx2.AsyncByteStream):
    def __init__(self, reply: aiohttp.ClientResponse) -> None:
        self._reply = reply
        self._content = reply.content

    async def read(self) -> bytes:
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise cut_off() from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    async def aclose(self) -> None:
        self._reply.close()


def event_stream(response: httpx2.Response) -> Body:
    """Return the reader of an event stream that came over a `Wire`.

    Raises:
        Malformed: the server answered with something else.
    """
    kind = response.headers.get("content-type", "text/event-stream").partition(";")[0].strip().lower()
    if kind != "text/event-stream":
        raise Malformed("the model server answered with no event stream; is the address such a server's?")
    return cast("Body", response.extensions[_BODY])


def cut_off() -> Incomplete:
    """Return the error of a connection that broke inside an answer."""
    return Incomplete("the model server closed the connection inside its answer; look at its log for a crash")


def unreachable(error: Exception, url: httpx2.URL) -> ProviderError:
    """Return our name for a failure to reach `url`."""
    place = urlsplit(str(url)).netloc.rpartition("@")[2]
    if isinstance(error, TimeoutError):
        return TimedOut(f"no connection to the model server at {place} within the connect clock")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Unavailable(f"the model server at {place} hung up without an answer; look at its log")
    return Unavailable(f"no model server answers at {place} ({type(error).__name__}); is it up, is the address right?")
