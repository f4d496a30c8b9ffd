"""Fetching pages over real sockets, from servers and name servers that mean harm."""

import asyncio
import gzip
from collections.abc import AsyncGenerator

import pytest
from aiohttp import web

from tests.support.site import INTERNAL, SITE, Names, Site, bomb, deflated
from workers.knowledge.addresses import Allowances
from workers.knowledge.fetch import Fetcher, Limits, NotFetched, Refused, judged
from workers.knowledge.media import Media

SMALL = Limits(seconds=3, bytes_sent=200_000, bytes_whole=300_000, redirects=3)
PUBLIC = Allowances.of(SITE)
"""127.0.0.2 stands for the internet; 127.0.0.1 stays what it is."""


@pytest.fixture
def names() -> Names:
    """`site.test` is public, `inside.test` internal, `both.test` both, `rebind.test` public only when first asked."""
    return Names(
        site_test=[[SITE]],
        inside_test=[[INTERNAL]],
        both_test=[[SITE, INTERNAL]],
        rebind_test=[[SITE], [INTERNAL]],
        late_test=[[INTERNAL], [SITE]],
        mapped_test=[["::ffff:127.0.0.1"]],
        metadata_test=[["169.254.169.254"]],
        none_test=[[]],
    )


@pytest.fixture
async def fetcher(names: Names) -> AsyncGenerator[Fetcher]:
    """A fetcher for which only 127.0.0.2 is public."""
    async with Fetcher(allowances=PUBLIC, limits=SMALL, lookup=names) as fetcher:
        yield fetcher


async def test_a_page_is_fetched_with_what_its_server_says(site: Site, fetcher: Fetcher) -> None:
    """Body, kind and charset come from the answer, and the address from which it came."""
    site.page("/a", "<p>Grüße</p>", "text/html; charset=utf-8")
    page = await fetcher.fetch(site.url("/a#part"))
    assert page.body.decode() == "<p>Grüße</p>"
    assert (page.media, page.charset, page.url) == (Media.HTML, "utf-8", site.url("/a"))
    assert site.asked == [f"{SITE} /a"]


@pytest.mark.parametrize(
    "host", ["inside.test", "both.test", "mapped.test", "metadata.test", INTERNAL, "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_nothing_inside_is_reached(site: Site, fetcher: Fetcher, host: str) -> None:
    """A name with one private address among its addresses, and each spelling of this machine, is refused unasked."""
    site.page("/", "secret")
    with pytest.raises(Refused, match="public internet"):
        await fetcher.fetch(site.url("/", host))
    assert site.asked == []


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "017700000001", "0x7f.0.0.1", "127.0.0.1."]
)
async def test_numbers_in_disguise_are_refused(site: Site, fetcher: Fetcher, host: str) -> None:
    """Decimal, octal, hexadecimal and shortened addresses are refused before anybody could read them."""
    site.page("/", "secret")
    with pytest.raises(Refused, match="neither a host"):
        await fetcher.fetch(site.url("/", host))
    assert site.asked == []


async def test_wide_digits_are_the_digits_they_look_like(site: Site, fetcher: Fetcher) -> None:
    """Unicode digits become the address that they spell, which is judged."""
    with pytest.raises(Refused, match="public internet"):
        await fetcher.fetch(f"http://１２７.０.０.１:{site.port}/")
    assert site.asked == []


async def test_a_name_that_rebinds_gains_nothing(site: Site, names: Names, fetcher: Fetcher) -> None:
    """A name is resolved once for each hop, and the connection goes to the address that was judged."""
    site.page("/", "public")
    assert (await fetcher.fetch(site.url("/", "rebind.test"))).body == b"public"
    assert names.asked == ["rebind.test"]
    assert site.asked == [f"{SITE} /"]

    with pytest.raises(Refused, match=r"leads to 127\.0\.0\.1"):
        await fetcher.fetch(site.url("/", "rebind.test"))
    assert site.asked == [f"{SITE} /"]


async def test_a_redirect_is_judged_anew(site: Site, names: Names, fetcher: Fetcher) -> None:
    """A public page that redirects inside, by name, by number or by a name that has rebound, leads nowhere."""
    for place, target in enumerate(
        [
            *(site.url("/in", INTERNAL), site.url("/in", "inside.test"), site.url("/in", "[::ffff:7f00:1]")),
            *(site.url("/in", "rebind.test"), f"//{INTERNAL}:{site.port}/in", site.url("/in", "2130706433")),
        ]
    ):
        if "rebind" in target:
            await names("rebind.test", 0)
        site.redirect(f"/{place}", target)
        with pytest.raises(Refused):
            await fetcher.fetch(site.url(f"/{place}"))
    assert all(asked.startswith(SITE) for asked in site.asked)


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "gopher://site.test/", "ftp://site.test/", "http://u:p@site.test/", "\\\\x\\y"]
)
async def test_a_redirect_keeps_to_the_web(site: Site, fetcher: Fetcher, target: str) -> None:
    """A redirect to another scheme, to credentials or to what is no URL is refused."""
    site.redirect("/", target)
    with pytest.raises(Refused):
        await fetcher.fetch(site.url())


async def test_redirects_are_followed_and_counted(site: Site, fetcher: Fetcher) -> None:
    """Up to three redirects lead to the page, a fourth ends it, and one to nowhere is told."""
    for place in range(5):
        site.redirect(f"/{place}", f"/{place + 1}", status=[301, 302, 303, 307, 308][place])
    site.page("/5", "here", "text/plain")
    assert (await fetcher.fetch(site.url("/2"))).url == site.url("/5")
    with pytest.raises(NotFetched, match="more than 3 redirects"):
        await fetcher.fetch(site.url("/1"))
    site.redirect("/nowhere", "")
    with pytest.raises(NotFetched, match="redirects to nowhere"):
        await fetcher.fetch(site.url("/nowhere"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///etc/passwd", "only http"),
        ("ftp://site.test/a", "only http"),
        ("//site.test/a", "only http"),
        ("http:///a", "only http"),
        ("http://user:secret@site.test/", "user name or password"),
        ("http://user@site.test/", "user name or password"),
        ("http://site.test:22/", "port 22"),
        ("http://site.test:6379999/", "no URL"),
        ("http://site.test/a b", "spaces"),
        ("http://site.test\\@inside.test/", "backslashes"),
        ("http://site.test/\r\nHost: inside.test", "control"),
        ("http://[::1%25eth0]/", "neither a host"),
        ("http://ex%61mple.com/", "neither a host"),
        ("http://" + "a" * 3_000, "too long"),
    ],
)
def test_a_doubtful_url_is_refused(url: str, said: str) -> None:
    """Other schemes, credentials, odd ports and ambiguous forms are refused in words, and no secret is repeated."""
    with pytest.raises(Refused, match=said) as refused:
        judged(url)
    assert "secret" not in str(refused.value)
    assert str(refused.value).isprintable()


async def test_an_installation_may_allow_a_host(site: Site, names: Names) -> None:
    """A host in the setting is fetched from though it is internal; another name of the same address is not."""
    site.page("/", "intranet", "text/plain")
    allowed = Allowances.of(f"inside.test:{site.port}")
    async with Fetcher(allowances=allowed, limits=SMALL, lookup=names) as fetcher:
        assert (await fetcher.fetch(site.url("/", "inside.test"))).body == b"intranet"
        with pytest.raises(Refused):
            await fetcher.fetch(site.url("/", "late.test"))
        with pytest.raises(Refused):
            await fetcher.fetch(site.url("/", INTERNAL))


async def test_a_socket_goes_only_where_it_was_judged_to_go() -> None:
    """Even if something asked the connector for another address, no socket is made."""
    from workers.knowledge import fetch

    guard = fetch._Guard(PUBLIC, Names(site_test=[[SITE]]))  # pyright: ignore[reportPrivateUsage]  the last line of defence
    await guard.resolve("site.test", 80)
    wanted = (2, 1, 6, "", (SITE, 80))
    guard.socket(wanted).close()
    for address in ((INTERNAL, 80), (SITE, 81)):
        with pytest.raises(PermissionError):
            guard.socket((2, 1, 6, "", address))


async def test_a_page_is_no_larger_than_allowed(site: Site, fetcher: Fetcher) -> None:
    """A body is cut off by its declared length, by its real length, and by what it unpacks to."""
    site.page("/declared", b"x" * 400_000, "text/plain")

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)

    site.handlers["/endless"] = endless
    site.page("/bomb", bomb(5), "text/plain", **{"Content-Encoding": "gzip"})
    for path in ("/declared", "/endless", "/bomb"):
        with pytest.raises(NotFetched, match="larger than"):
            await fetcher.fetch(site.url(path))


async def test_compressed_pages_are_unpacked(site: Site, fetcher: Fetcher) -> None:
    """gzip and deflate are read; what was cut, is damaged or was not asked for is told."""
    body = b"Hello. " * 1_000
    site.page("/gzip", gzip.compress(body), "text/plain", **{"Content-Encoding": "gzip"})
    site.page("/deflate", deflated(body), "text/plain", **{"Content-Encoding": "deflate"})
    assert (await fetcher.fetch(site.url("/gzip"))).body == body
    assert (await fetcher.fetch(site.url("/deflate"))).body == body
    for place, (packed, encoding) in enumerate(
        [(gzip.compress(body)[:-20], "gzip"), (b"no gzip", "gzip"), (body, "br"), (body, "gzip, gzip")]
    ):
        site.page(f"/{place}", packed, "text/plain", **{"Content-Encoding": encoding})
        with pytest.raises(NotFetched, match="compressed in a way"):
            await fetcher.fetch(site.url(f"/{place}"))


async def test_a_page_takes_no_longer_than_allowed(site: Site, names: Names) -> None:
    """A server that trickles, and a name server that never answers, cost the limit and no more."""

    async def trickle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.02)

    async def silent(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    site.handlers["/"] = trickle
    for lookup in (names, silent):
        async with Fetcher(allowances=PUBLIC, limits=Limits(seconds=0.2), lookup=lookup) as fetcher:
            with pytest.raises(NotFetched, match=r"longer than 0\.2 s"):
                await fetcher.fetch(site.url())


@pytest.mark.parametrize(
    ("content_type", "path", "media"),
    [
        ("text/html", "/x", Media.HTML),
        ("application/pdf", "/x", Media.PDF),
        ("text/plain; charset=utf-8", "/x.md", Media.MARKDOWN),
        ("text/plain", "/x", Media.TEXT),
        ("application/octet-stream", "/x.pdf", Media.PDF),
        ("text/html", "/x.pdf", Media.HTML),
        ("text/xml", "/sitemap.xml", Media.SITEMAP),
        ("image/png", "/x.md", None),
        ("application/json", "/x", None),
        ("application/octet-stream", "/x", None),
    ],
)
async def test_only_documents_are_read(
    site: Site, fetcher: Fetcher, content_type: str, path: str, media: Media | None
) -> None:
    """The server says what a page is, its path where the server does not, and nothing else is read."""
    site.page(path, "x", content_type)
    if media is None:
        with pytest.raises(NotFetched, match="no document that can be read"):
            await fetcher.fetch(site.url(path))
    else:
        assert (await fetcher.fetch(site.url(path))).media is media


async def test_what_goes_wrong_is_told(site: Site, fetcher: Fetcher) -> None:
    """An error status, an unknown name, a name without address, a closed port and a broken answer are sentences."""
    site.handlers["/cut"] = _cut
    for url, said in (
        (site.url("/missing"), "status 404"),
        (site.url("/", "unknown.test"), "has no address"),
        (site.url("/", "none.test"), "has no address"),
        (f"http://{SITE}:9/", "port 9"),
        (f"https://site.test:{site.port}/", "cannot be reached"),
        (site.url("/cut"), "cannot be reached"),
    ):
        with pytest.raises(NotFetched, match=said) as told:
            await fetcher.fetch(url)
        assert str(told.value).endswith(".")


async def _cut(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def test_a_page_gets_no_cookies_and_no_credentials(site: Site, fetcher: Fetcher) -> None:
    """What one page sets is not sent to the next."""
    seen: list[str | None] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("Cookie") or request.headers.get("Authorization"))
        return web.Response(text="x", headers={"Set-Cookie": "a=b"})

    site.handlers["/"] = handle
    await fetcher.fetch(site.url())
    await fetcher.fetch(site.url())
    assert seen == [None, None]
