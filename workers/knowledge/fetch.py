"""Fetching a page that somebody named, without becoming their way into this network.

Every hop is judged by itself: the URL's form, then every address its name resolves to. The connection is made to those
addresses and no other: the name is resolved once, and the socket is asked again whether it may go where it goes.
"""

import asyncio
import errno
import re
import socket
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import (
    ClientConnectorCertificateError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from workers.knowledge.addresses import Address, Allowances, literal, plain
from workers.knowledge.media import ACCEPT, Media, charset_of, of_type

AGENT: Final = "Fairlead-Knowledge/1 (reads pages into a knowledge base)"

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_WEB_PORTS: Final = frozenset({80, 443})
_LOWEST_OTHER_PORT: Final = 1024
_LONGEST_URL: Final = 2_048
_AMBIGUOUS: Final = re.compile(r"[\x00-\x20\\\x7f-\xa0]")
"""What readers of URLs disagree about."""
_CHUNK: Final = 65_536

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""Resolves a name to addresses; raises OSError when there are none."""


class NotFetched(Exception):
    """A page was not fetched. The message says why and, where something can be done, what."""


class Refused(NotFetched):
    """A URL that is never fetched here, whatever its server would answer."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one page may cost."""

    seconds: float = 30.0
    """Redirects, resolving and reading included."""
    bytes_sent: int = 20 * 2**20
    """As they come over the wire."""
    bytes_whole: int = 20 * 2**20
    """After decompression."""
    redirects: int = 5


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a URL holds."""

    url: str
    """Where it was found in the end, after redirects."""
    body: bytes = field(repr=False)
    media: Media
    charset: str | None = None
    """As the server names it."""


async def system_lookup(host: str, port: int) -> Sequence[str]:
    """Resolve a name as this machine does."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Fetcher:
    """Fetches pages for one knowledge base; use it as a context."""

    def __init__(
        self, *, allowances: Allowances | None = None, limits: Limits | None = None, lookup: Lookup = system_lookup
    ) -> None:
        self._limits = limits or Limits()
        self._guard = _Guard(allowances or Allowances(), lookup)
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = ClientSession(
            connector=TCPConnector(
                resolver=self._guard,
                use_dns_cache=False,
                socket_factory=self._guard.socket,
                happy_eyeballs_delay=None,
                force_close=True,  # a kept connection would serve a later URL without its name being judged
                limit=4,
            ),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None, sock_connect=10),
            headers={"User-Agent": AGENT, "Accept": ACCEPT, "Accept-Encoding": "gzip, deflate"},
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def fetch(self, url: str) -> Page:
        """Return the page, after at most `Limits.redirects` redirects.

        Raises:
            Refused: the URL, or one it redirects to, leads where nothing is fetched from.
            NotFetched: the server cannot be reached, or answered with an error, too much, too late, or no document.
        """
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._follow(judged(url))
        except TimeoutError:
            raise NotFetched(f"{url} took longer than {self._limits.seconds:g} s.") from None
        except ClientConnectorCertificateError as error:
            raise NotFetched(f"The certificate of {url} is not valid ({_cause(error)}).") from error
        except (ClientError, OSError, ValueError) as error:
            raise NotFetched(f"{url} cannot be reached ({_cause(error)}).") from error

    async def _follow(self, url: URL) -> Page:
        session = self._session
        if session is None:
            raise RuntimeError("a fetcher is used as a context")
        for _ in range(self._limits.redirects + 1):
            self._guard.check_literal(url)
            async with session.get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    return await self._page(url, response)
                url = _next(url, response.headers.get("Location"))
        raise NotFetched(f"{url} comes after more than {self._limits.redirects} redirects.")

    async def _page(self, url: URL, response: ClientResponse) -> Page:
        if response.status != 200:
            raise NotFetched(f"{url} answered with status {response.status}.")
        content_type = response.headers.get("Content-Type", "")
        media = of_type(content_type, url.path)
        if media is None:
            told = content_type[:100] or "nothing that says what it is"
            raise NotFetched(f"{url} is no document that can be read: its server calls it {told!r}.")
        if (response.content_length or 0) > self._limits.bytes_sent:
            raise self._too_large(url)
        return Page(url=str(url), body=await self._body(url, response), media=media, charset=charset_of(content_type))

    async def _body(self, url: URL, response: ClientResponse) -> bytes:
        sent = 0
        try:
            unpacked = _Unpacked(response.headers.get("Content-Encoding", ""), most=self._limits.bytes_whole)
            async for chunk in response.content.iter_chunked(_CHUNK):
                sent += len(chunk)
                if sent > self._limits.bytes_sent:
                    raise self._too_large(url)
                unpacked.add(chunk)
            return unpacked.whole()
        except _TooMuch:
            raise self._too_large(url) from None
        except zlib.error as error:
            raise NotFetched(f"{url} is compressed in a way that cannot be read ({error}).") from error

    def _too_large(self, url: URL) -> NotFetched:
        most = min(self._limits.bytes_sent, self._limits.bytes_whole)
        return NotFetched(f"{url} is larger than {most / 2**20:g} MiB.")


def judged(url: str) -> URL:
    """Return a URL whose form leaves no doubt where it leads.

    Raises:
        Refused: it is none, or one of a kind that is not fetched.
    """
    shown = ascii(url[:200])
    if len(url) > _LONGEST_URL or _AMBIGUOUS.search(url):
        raise Refused(f"{shown} is not fetched: it is too long, or has spaces, backslashes or control characters.")
    try:
        read = URL(url).with_fragment(None)
        host = read.raw_host
        port = read.port
    except ValueError as error:
        raise Refused(f"{shown} is not fetched: it is no URL ({error}).") from None
    if read.scheme not in {"http", "https"} or not host:
        raise Refused(f"{shown} is not fetched: only http:// and https:// are.")
    if read.raw_user is not None or read.raw_password is not None:
        raise Refused(f"{shown.partition('//')[0]}//… is not fetched: it has a user name or password in it.")
    if port not in _WEB_PORTS and (port or 0) < _LOWEST_OTHER_PORT:
        raise Refused(f"{shown} is not fetched: port {port} is none of the web's.")
    try:
        literal(host)
    except ValueError:
        raise Refused(f"{shown} is not fetched: {host!r} is neither a host's name nor an address.") from None
    return read


def _next(url: URL, location: str | None) -> URL:
    if not location:
        raise NotFetched(f"{url} redirects to nowhere.")
    try:
        if _AMBIGUOUS.search(location):
            raise ValueError(location)
        absolute = url.join(URL(location))
    except ValueError:
        raise Refused(f"{url} redirects to what is no URL.") from None
    following = judged(str(absolute))
    if url.scheme == "https" and following.scheme == "http":
        raise Refused(f"{url} redirects to {following}, which anybody on the way could change.")
    return following


class _Guard(AbstractResolver):
    """Resolves names to addresses that may be spoken to, and makes no socket for any other."""

    def __init__(self, allowances: Allowances, lookup: Lookup) -> None:
        self._allowances = allowances
        self._lookup = lookup
        self._passed: set[tuple[Address, int]] = set()
        """Where the hops that were judged may connect to."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name, once all of them have been judged: one that is private refuses the name."""
        try:
            spelled = await self._lookup(host, port)
            found = list(dict.fromkeys(ip_address(one) for one in spelled))
        except (OSError, ValueError) as error:
            raise NotFetched(f"The name {host!r} has no address ({_cause(error)}).") from error
        for address in found:
            self._check(address, host=host, port=port)
        if not found:
            raise NotFetched(f"The name {host!r} has no address.")
        return [_result(host, plain(address), port) for address in found]

    async def close(self) -> None:
        """Nothing is kept open."""

    def check_literal(self, url: URL) -> None:
        """Judge the address that a URL spells: nobody resolves it."""
        host = url.raw_host or ""
        address = literal(host)
        if address is not None:
            self._check(address, host=host, port=url.port or 0)

    def socket(self, wanted: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        """Return a socket to connect to an address that has been judged."""
        family, kind, protocol, _, (host, port, *_) = wanted
        if (plain(ip_address(host)), port) not in self._passed:
            raise PermissionError(errno.EACCES, f"{host} was never judged")
        return socket.socket(family, kind, protocol)

    def _check(self, address: Address, *, host: str, port: int) -> None:
        if not self._allowances.allow(address, host=host, port=port):
            where = f"{host!r} is" if str(address) == host else f"{host!r} leads to {address},"
            raise Refused(
                f"{where} not an address of the public internet: nothing is fetched from there unless "
                "FAIRLEAD_KNOWLEDGE_HOSTS allows it."
            )
        self._passed.add((plain(address), port))


def _result(host: str, address: Address, port: int) -> ResolveResult:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return ResolveResult(
        hostname=host, host=str(address), port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
    )


class _TooMuch(Exception):
    """More came out than was allowed."""


class _Unpacked:
    """A body decompressed as it comes, never further than allowed."""

    def __init__(self, encoding: str, *, most: int) -> None:
        self._most = most
        self._parts = bytearray()
        self._ended = True
        self._decoder = None
        match encoding.strip().lower():
            case "" | "identity":
                return
            case "gzip" | "x-gzip":
                self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
            case "deflate":
                self._decoder = zlib.decompressobj()
            case other:
                raise zlib.error(f"Content-Encoding {other[:40]!r} was not asked for")

    def add(self, chunk: bytes) -> None:
        room = self._most - len(self._parts)
        if self._decoder is None:
            self._parts += chunk
        else:
            self._parts += self._decoder.decompress(chunk, room + 1)
            self._ended = self._decoder.eof
        if len(self._parts) > self._most:
            raise _TooMuch

    def whole(self) -> bytes:
        if not self._ended:
            raise zlib.error("it ends too early")
        return bytes(self._parts)


def _cause(error: BaseException) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())[:200]
