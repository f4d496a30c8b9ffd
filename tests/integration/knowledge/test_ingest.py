"""Documents come into the store: once, whole, and only if they can be read."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.tenants import UnknownTenant
from tests.support.site import SITE, Names, Site, serving
from workers.knowledge.addresses import Allowances
from workers.knowledge.blocks import Unreadable
from workers.knowledge.fetch import Fetcher
from workers.knowledge.ingest import Ingest, Report, Told, Wanted
from workers.knowledge.media import Media
from workers.knowledge.reader import Reader


class Interrupted(Exception):
    """Somebody ends the run."""


class Heard:
    """What a progress bar would have shown."""

    def __init__(self) -> None:
        self.expected = 0
        self.told: list[Told] = []
        self.interrupt_after: int | None = None

    def expect(self, documents: int) -> None:
        self.expected = documents

    def hear(self, told: Told) -> None:
        self.told.append(told)
        if self.interrupt_after == len(self.told):
            raise Interrupted

    def publishing(self) -> None:
        assert len(self.told) == self.expected


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """One reading process for the module."""
    with Reader() as reader:
        yield reader


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A web site."""
    async with serving() as site:
        yield site


class Adding:
    """`kb add` for the tenant `acme`, without the command line."""

    def __init__(self, knowledge: KnowledgeBase, fetcher: Fetcher, reader: Reader) -> None:
        self.knowledge = knowledge
        self._fetcher = fetcher
        self._reader = reader
        self.heard = Heard()

    async def add(
        self, *given: object, tenant: str = "acme", prune: bool = False, follow: int = 0, interrupt: int | None = None
    ) -> Report:
        self.heard = Heard()
        self.heard.interrupt_after = interrupt
        ingest = Ingest(
            tenant=tenant, knowledge=self.knowledge, fetcher=self._fetcher, reader=self._reader, progress=self.heard
        )
        wanted = Wanted(given=[str(one) for one in given], prune=prune, follow=follow)
        return await ingest.run(wanted, publish=self.knowledge.publish)

    async def published(self) -> dict[str, int]:
        return {one.source: one.pieces for one in await self.knowledge.listing("acme") if one.published}


@pytest.fixture
async def adding(knowledge: KnowledgeBase, reader: Reader) -> AsyncIterator[Adding]:
    """Ready to add, from `site.test` as well."""
    names = Names(site_test=[[SITE]], other_test=[[SITE]])
    async with Fetcher(allowances=Allowances.of(SITE), lookup=names) as fetcher:
        yield Adding(knowledge, fetcher, reader)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three documents that can be read, and what cannot."""
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "a.md").write_text("# Prices\n\nOne site costs 900 €.\n", encoding="utf-8")
    (docs / "deep" / "b.html").write_text("<h1>Set up</h1><p>It takes a week.</p>", encoding="utf-8")
    (docs / "faq.jsonl").write_text(json.dumps({"question": "Is there SSO?", "answer": "Yes."}), encoding="utf-8")
    (docs / "table.csv").write_text("id,name\n1,x\n", encoding="utf-8")
    (docs / "picture.png").write_bytes(b"\x89PNG")
    (docs / ".hidden.md").write_text("# Hidden\n", encoding="utf-8")
    (docs / "outside.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "secret.md").write_text("# Secret\n", encoding="utf-8")
    return docs


def outcomes(report: Report) -> dict[str, str]:
    return {Path(one.source).name: one.outcome for one in report.told}


async def test_a_folder_is_read_once(adding: Adding, folder: Path) -> None:
    """Each document below a folder is stored under its path and published; a second run reads nothing again."""
    first = await adding.add(folder)
    assert outcomes(first) == {"a.md": "added", "b.html": "added", "faq.jsonl": "added", "table.csv": "skipped"}
    assert adding.heard.expected == 4
    assert await adding.published() == {f"{folder}/{name}": 1 for name in ("a.md", "deep/b.html", "faq.jsonl")}
    second = await adding.add(folder)
    assert second.counts == {"unchanged": 3, "skipped": 1}
    assert second.snapshot == first.snapshot


async def test_only_what_changed_is_read(adding: Adding, folder: Path) -> None:
    """A changed file takes its own place, a new one is added, and the version changes with them."""
    first = await adding.add(folder)
    (folder / "a.md").write_text("# Prices\n\nOne site costs 950 €.\n", encoding="utf-8")
    (folder / "c.txt").write_text("Support answers within an hour.", encoding="utf-8")
    second = await adding.add(folder)
    assert second.counts == {"replaced": 1, "added": 1, "unchanged": 2, "skipped": 1}
    assert second.snapshot != first.snapshot
    assert len(await adding.published()) == 4


async def test_what_is_gone_goes_when_asked(adding: Adding, folder: Path) -> None:
    """A file that is no more there is kept, and taken out with `prune`; other folders and broken files stay."""
    other = folder.parent / "docs2"
    other.mkdir()
    (other / "x.md").write_text("Other words.", encoding="utf-8")
    await adding.add(folder, other)
    (folder / "a.md").unlink()
    (folder / "deep" / "b.html").write_bytes(b"\0\xff")
    assert "removed" not in (await adding.add(folder)).counts
    report = await adding.add(folder, prune=True)
    assert outcomes(report) == {"a.md": "removed", "b.html": "failed", "faq.jsonl": "unchanged", "table.csv": "skipped"}
    assert await adding.published() == {f"{folder}/deep/b.html": 1, f"{folder}/faq.jsonl": 1, f"{other}/x.md": 1}


async def test_one_bad_file_stops_no_other(adding: Adding, folder: Path) -> None:
    """Each document that cannot be read is told in a sentence, and all the others are there."""
    (folder / "bad.pdf").write_bytes(b"%PDF-1.7 broken")
    (folder / "empty.md").write_text("", encoding="utf-8")
    report = await adding.add(folder / "nothing", folder, folder / "picture.png", folder / "table.csv")
    failed = {Path(one.source).name: one.problem or "" for one in report.told if one.outcome == "failed"}
    assert failed.keys() == {"nothing", "bad.pdf", "empty.md", "picture.png", "table.csv"}
    assert all(problem.endswith(".") for problem in failed.values())
    assert len(await adding.published()) == 3


async def test_an_interrupted_run_goes_on(adding: Adding, folder: Path) -> None:
    """What was stored before the interruption is not published, not read again and not doubled."""
    with pytest.raises(Interrupted):
        await adding.add(folder, interrupt=2)
    assert await adding.published() == {}
    report = await adding.add(folder)
    assert report.counts == {"unchanged": 2, "added": 1, "skipped": 1}
    assert len(await adding.published()) == 3


async def test_a_page_is_known_by_its_url(adding: Adding, site: Site) -> None:
    """A page is stored under the URL that was named, again only when it has changed; what fails is told."""
    site.page("/a", "<h1>Prices</h1><p>One site costs 900 €.</p>")
    assert (await adding.add(site.url("/a"))).counts == {"added": 1}
    assert (await adding.add(site.url("/a"))).counts == {"unchanged": 1}
    site.page("/a", "<h1>Prices</h1><p>One site costs 950 €.</p>")
    report = await adding.add(site.url("/a"), site.url("/missing"), "http://127.0.0.1:1/", "ftp://site.test/x")
    assert report.counts == {"replaced": 1, "failed": 3}
    assert await adding.published() == {site.url("/a"): 1}


async def test_links_are_followed_on_their_own_site(adding: Adding, site: Site) -> None:
    """With `follow`, so many pages of the same site come in, none twice, and none of another site."""
    links = "<a href='/b#x'>b</a><a href='b'>b</a><a href='/c'>c</a><a href='mailto:x@y.z'>m</a><a href='/moved'>d</a>"
    site.page("/a", f"<p>Page a.</p>{links}<a href='{site.url('/z', 'other.test')}'>z</a><a href='file:///etc/x'>f</a>")
    site.page("/b", "<p>Page b.</p><a href='/a'>a</a><a href='/d'>d</a>")
    site.page("/c", "<p>Page c.</p>")
    site.page("/d", "<p>Page d.</p>")
    site.redirect("/moved", site.url("/z", "other.test"))
    site.page("/z", "<p>Page z.</p>")
    assert (await adding.add(site.url("/a"))).counts == {"added": 1}
    report = await adding.add(site.url("/a"), follow=2)
    assert report.counts == {"unchanged": 1, "added": 2}
    report = await adding.add(site.url("/a"), follow=10)
    assert report.counts == {"unchanged": 3, "added": 1, "skipped": 1}
    assert {url.rpartition("/")[2] for url in await adding.published()} == {"a", "b", "c", "d"}


async def test_a_sitemap_is_its_pages(adding: Adding, site: Site) -> None:
    """A sitemap, or an index of sitemaps, is the pages it lists on its own site, and no document itself."""
    locations = "".join(f"<url><loc> {site.url(path)} </loc></url>" for path in ("/a?x=1&amp;y=2", "/b"))
    away = f"<url><loc>{site.url('/a', 'other.test')}</loc></url><url><loc>http://127.0.0.1/</loc></url>"
    site.page("/sitemap.xml", f"<sitemapindex><loc>{site.url('/pages.xml')}</loc></sitemapindex>", "application/xml")
    site.page("/pages.xml", f"<?xml version='1.0'?><urlset>{locations}{away}</urlset>", "text/xml")
    site.page("/a", "<p>Page a.</p>")
    site.page("/b", "<p>Page b.</p>")
    report = await adding.add(site.url("/sitemap.xml"))
    assert report.counts == {"added": 2}
    assert await adding.published() == {site.url("/a?x=1&y=2"): 1, site.url("/b"): 1}


async def test_a_stranger_has_no_knowledge_base(adding: Adding, folder: Path) -> None:
    """For a tenant that does not exist nothing is stored."""
    with pytest.raises(UnknownTenant):
        await adding.add(folder, tenant="nobody")


async def test_a_file_that_hangs_costs_itself_only() -> None:
    """A page made to take hours to read is given up in time, and the next document is read."""
    with Reader(seconds=1) as reader:
        with pytest.raises(Unreadable, match="longer than 1 s"):
            await reader.read(b"<div>" * 1_000_000, Media.HTML, source="deep.html")
        document = await reader.read(b"<p>Hello.</p>", Media.HTML, source="next.html")
        assert [piece.text for piece in document.pieces] == ["Hello."]
        with pytest.raises(Unreadable, match="no text"):
            await reader.read(b"", Media.HTML, source="empty.html")
