"""Documents into the store: those only that have changed, one after the other, and a new version at the end.

Each document is stored whole or not at all, so whoever is interrupted goes on with those that are missing.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from infra.postgres.knowledge import KnowledgeBase
from workers.knowledge.blocks import Unreadable
from workers.knowledge.characters import decoded
from workers.knowledge.fetch import Fetcher, NotFetched, Page
from workers.knowledge.media import Media
from workers.knowledge.questions import NoQuestions
from workers.knowledge.read import digest
from workers.knowledge.reader import Reader
from workers.knowledge.sources import (
    File,
    content,
    files_of,
    folder_prefix,
    is_file,
    is_url,
    locations,
    media_of,
    origin_of,
    same_site,
)

MOST_OF_A_SITEMAP: Final = 1_000
"""Pages."""

Outcome: TypeAlias = Literal["added", "replaced", "unchanged", "removed", "skipped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What became of a document."""

    source: str
    outcome: Outcome
    pieces: int = 0
    problem: str | None = None
    """Why it failed, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be done."""

    given: Sequence[str]
    """Paths and URLs."""
    prune: bool = False
    """Whether documents of a named folder go whose files are gone."""
    follow: int = 0
    """Pages that links of a named page, on its own site, may lead to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was done."""

    told: tuple[Told, ...]
    snapshot: str | None
    """The version that readers see from now on; None where there is nothing to see."""

    @property
    def counts(self) -> Counter[Outcome]:
        """Return how many documents ended how."""
        return Counter(one.outcome for one in self.told)


class Progress(Protocol):
    """Hears how far it is."""

    def expect(self, documents: int) -> None:
        """There are so many in all, as far as is known."""
        ...

    def hear(self, told: Told) -> None:
        """One is done."""
        ...

    def publishing(self) -> None:
        """All are done; they are made searchable."""
        ...


class Ingest:
    """Reads documents into the knowledge base of one tenant."""

    def __init__(
        self, *, tenant: str, knowledge: KnowledgeBase, fetcher: Fetcher, reader: Reader, progress: Progress
    ) -> None:
        self._tenant = tenant
        self._knowledge = knowledge
        self._fetcher = fetcher
        self._reader = reader
        self._progress = progress
        self._told: list[Told] = []
        self._known: dict[str, str] = {}
        self._expected = 0

    async def run(self, wanted: Wanted, *, publish: Callable[[str], Awaitable[str]]) -> Report:
        """Store what is new and what has changed, then publish it; what cannot be read is told, and stops nothing else.

        Args:
            wanted: what is to be read.
            publish: makes the tenant's next version of what is stored, and returns its name.

        Raises:
            UnknownTenant: there is no such tenant.
            LedgerUnavailable: PostgreSQL does not answer; the next run goes on.
        """
        self._known = await self._knowledge.digests(self._tenant)
        files, pages = self._sorted_out(wanted.given)
        self._expect(len(files) + len(pages) + len(self._told))
        for file in files.values():
            await self._file(file)
        for url in pages:
            await self._site(url, follow=wanted.follow)
        if wanted.prune:
            await self._prune(wanted.given, files)
        self._progress.publishing()
        stored = self._known or any(one.outcome in {"added", "replaced"} for one in self._told)
        return Report(told=tuple(self._told), snapshot=await publish(self._tenant) if stored else None)

    def _sorted_out(self, given: Sequence[str]) -> tuple[dict[str, File], list[str]]:
        files: dict[str, File] = {}
        pages: dict[str, None] = {}
        for one in given:
            if is_url(one):
                pages[one] = None
                continue
            try:
                files |= {file.source: file for file in files_of(one)}
            except Unreadable as error:
                self._tell(Told(source=one, outcome="failed", problem=str(error)))
        return files, list(pages)

    async def _file(self, file: File) -> None:
        try:
            media = media_of(file)
            raw = await asyncio.to_thread(content, file)
            self._tell(await self._taken(file.source, raw, media))
        except NoQuestions as error:
            # Of a folder's tables most are no questions and answers, and nobody said that this one is.
            self._tell(Told(source=file.source, outcome="failed" if file.named else "skipped", problem=str(error)))
        except Unreadable as error:
            self._tell(Told(source=file.source, outcome="failed", problem=str(error)))

    async def _site(self, url: str, *, follow: int) -> None:
        """Take a page and those that it leads to, breadth first; of a sitemap those that it lists."""
        waiting, seen, origin = deque([url]), {url}, ""
        room = follow
        while waiting:
            source = waiting.popleft()
            try:
                page = await self._fetcher.fetch(source)
                origin = origin or origin_of(page.url)
                if source != url and (page.url in seen - {source} or origin_of(page.url) != origin):
                    self._tell(Told(source=source, outcome="skipped", problem=f"It redirects to {page.url}."))
                    continue
                seen.add(page.url)
                if page.media is Media.SITEMAP and source == url:
                    room = follow or MOST_OF_A_SITEMAP
                leads = await self._led(page) if room else []
                if page.media is not Media.SITEMAP:
                    self._tell(await self._taken(source, page.body, page.media, page.charset))
            except (NotFetched, Unreadable) as error:
                self._tell(Told(source=source, outcome="failed", problem=str(error)))
                continue
            new = [link for link in leads if link not in seen][:room]
            room -= len(new)
            seen.update(new)
            waiting.extend(new)
            self._expect(len(new) - (page.media is Media.SITEMAP))

    async def _led(self, page: Page) -> list[str]:
        match page.media:
            case Media.SITEMAP:
                return same_site(page.url, locations(decoded(page.body, page.charset)))
            case Media.HTML:
                return same_site(page.url, await self._reader.links(page.body, charset=page.charset))
            case _:
                return []

    async def _taken(self, source: str, raw: bytes, media: Media, charset: str | None = None) -> Told:
        """Store a document unless it is there as it is."""
        if self._known.get(source) == digest(raw):
            return Told(source=source, outcome="unchanged")
        document = await self._reader.read(raw, media, source=source, charset=charset)
        stored = await self._knowledge.put(self._tenant, document)
        return Told(source=source, outcome=stored.state, pieces=stored.pieces)

    async def _prune(self, given: Sequence[str], files: Mapping[str, File]) -> None:
        """Take out what was added from these folders and is gone; what is there and cannot be read stays as it was."""
        folders = [prefix for one in given if (prefix := folder_prefix(one)) is not None]
        for source in sorted(self._known.keys() - files.keys()):
            if is_file(source) and any(source.startswith(prefix) for prefix in folders):
                self._expect(1)
                await self._knowledge.remove(self._tenant, source)
                self._tell(Told(source=source, outcome="removed"))

    def _expect(self, more: int) -> None:
        self._expected += more
        self._progress.expect(self._expected)

    def _tell(self, told: Told) -> None:
        self._told.append(told)
        self._progress.hear(told)
