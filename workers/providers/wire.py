"""One HTTP session for every model client of a process, on aiohttp."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Final, TypeAlias, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2

from infra.crash_points import reach
from schemas.completions import Incomplete, Malformed, ProviderError, TimedOut, Unavailable

KEEPALIVE_SECONDS: Final = 4.0
"""Below the 5 s after which uvicorn (vLLM, proxies) hangs up: a request must not meet a connection just closed."""

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]

_MOST_ERROR_BYTES: Final = 65_536
_EVENT_STREAM: Final = "text/event-stream"
_REPLY: Final = "fairlead.reply"


class Reply:
    """A response whose headers are here: its status, and its bytes as they arrive."""

    __slots__ = ("_content", "_response", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self._response = response
        self._content = response.content

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in any case."""
        return self._response.headers

    async def read(self) -> bytes:
        """Return what has arrived, waiting for something; empty at the end.

        Raises:
            Incomplete: the connection broke.
        """
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise Incomplete(
                "the model server closed the connection inside its answer; look at its log for a crash"
            ) from error

    async def read_error(self) -> bytes:
        """Return the body of an error, as far as it comes and is of a size to be one."""
        body = b""
        try:
            while len(body) < _MOST_ERROR_BYTES and (data := await self.read()):
                body += data
        except Incomplete:
            return body
        return body

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        while data := await self.read():
            yield data

    def close(self) -> None:
        """Give the connection back if the body is read, else hang up."""
        self._response.close()

    def expect_events(self) -> None:
        """Do nothing if this is an event stream.

        Raises:
            Malformed: it is something else.
        """
        kind = self.headers.get("Content-Type", _EVENT_STREAM).partition(";")[0].strip().lower()
        if kind != _EVENT_STREAM:
            raise Malformed("the model server answered with no event stream; is the address such a server's?")


class Wire:
    """The session. One request is one request: no redirects, no retries; closing a reply hangs up at once."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}

    async def send(
        self, method: str, url: str, *, headers: Headers, body: bytes | None, connect: float | None
    ) -> Reply:
        """Send one request, connecting within `connect` seconds; return once the reply's headers are here.

        Raises:
            Unavailable: nobody answers at the address, or the connection closed before a status line.
            TimedOut: the connection was not made in time.
        """
        try:
            response = await self._open().request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=connect),
                proxy=self._proxy(url),
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise unreachable(error, url) from error
        reach("after_request_sent")
        return Reply(response)

    async def aclose(self) -> None:
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

    def _proxy(self, url: str) -> str | None:
        """Return the proxy that the environment names for `url`; looked up once for each address."""
        if url not in self._proxies:
            place = urlsplit(url)
            self._proxies[url] = None if proxy_bypass(place.netloc) else getproxies().get(place.scheme)
        return self._proxies[url]


class WireTransport(httpx2.AsyncBaseTransport):
    """Lends a wire to an official client. Its responses carry the reply itself, as httpcore's carry their socket."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request`; raises as `Wire.send` does."""
        waits = cast("dict[str, float | None]", request.extensions.get("timeout", {}))
        reply = await self._wire.send(
            request.method,
            str(request.url),
            headers=request.headers.multi_items(),
            body=request.content or None,
            connect=waits.get("connect"),
        )
        # aiohttp undoes any compression, so nobody must try again.
        headers = [(k, v) for k, v in reply.headers.items() if k.lower() != "content-encoding"]
        return httpx2.Response(
            reply.status, headers=headers, stream=_Stream(reply), request=request, extensions={_REPLY: reply}
        )

    async def aclose(self) -> None:
        """Leave the wire open: a client closes its transport, and the wire is everybody's."""


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __aiter__(self) -> AsyncGenerator[bytes]:
        return aiter(self._reply)

    async def aclose(self) -> None:
        self._reply.close()


def reply_of(response: httpx2.Response) -> Reply:
    """Return the reply behind a response that came over a `WireTransport`."""
    return cast("Reply", response.extensions[_REPLY])


def unreachable(error: Exception, url: str) -> ProviderError:
    """Return our name for a failure to reach `url`."""
    place = urlsplit(url).netloc.rpartition("@")[2]
    if isinstance(error, TimeoutError):
        return TimedOut(f"no connection to the model server at {place} within the connect clock")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Unavailable(f"the model server at {place} hung up without an answer; look at its log")
    return Unavailable(f"no model server answers at {place} ({type(error).__name__}); is it up, is the address right?")
