"""`fairlead kb add`: documents read into a tenant's knowledge base, and what became of each."""

import asyncio
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.failure import CommandFailed
from cli.local_keys import TENANT
from cli.state import DEFAULT_STATE, local_settings
from cli.tables import counted
from cli.terminal import harmless
from infra.settings import Settings

if TYPE_CHECKING:  # reading documents takes a second to import
    from workers.knowledge.ingest import Report, Told, Wanted

_SHOWN: Final = frozenset({"added", "replaced", "removed", "failed"})
"""What a line is written for; the others are counted."""


def add(
    given: Annotated[
        list[str], typer.Argument(metavar="PATH|URL...", help="Files, folders, pages, sitemaps.", show_default=False)
    ],
    tenant: Annotated[str, typer.Option(help="Whose knowledge base.")] = TENANT,
    follow: Annotated[int, typer.Option(min=0, max=10_000, help="Pages to follow links to, on the site of a URL.")] = 0,
    prune: Annotated[
        bool, typer.Option("--prune", help="Take out documents whose files are gone from a folder.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(
            help=f"Directory of a system started with `fairlead up`. If absent: {DEFAULT_STATE} if there is one, else "
            "FAIRLEAD_DATABASE decides."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read Markdown, HTML, PDF, text, and questions and answers (JSON Lines, CSV) into a knowledge base.

    What has not changed is not read again, so an interrupted run is simply run again. Exit status 1 if any document
    could not be read; the others are there all the same.
    """
    from workers.knowledge.ingest import Wanted

    report = asyncio.run(
        _ingested(_settings(state), tenant, Wanted(given=given, follow=follow, prune=prune), quiet=as_json)
    )
    typer.echo(_as_json(report, tenant) if as_json else _summary(report, tenant))
    sys.exit(1 if report.counts["failed"] else 0)


def _settings(state: Path | None) -> Settings:
    if state is None and not (DEFAULT_STATE / "endpoints.json").exists():
        return Settings()
    return local_settings(state or DEFAULT_STATE)


async def _ingested(settings: Settings, tenant: str, wanted: "Wanted", *, quiet: bool) -> "Report":
    from infra.embeddings.configured import configured_embedder
    from infra.embeddings.embedder import EmbeddingFailed
    from infra.postgres.engine import create_engine
    from infra.postgres.knowledge import KnowledgeBase
    from infra.postgres.knowledge_indexing import Indexing
    from infra.postgres.tenants import UnknownTenant
    from workers.knowledge.addresses import Allowances, NoSuchAllowance
    from workers.knowledge.fetch import Fetcher
    from workers.knowledge.ingest import Ingest
    from workers.knowledge.reader import Reader

    try:
        allowances = Allowances.of(settings.knowledge_hosts)
    except NoSuchAllowance as error:
        raise CommandFailed(f"FAIRLEAD_KNOWLEDGE_HOSTS: {error}.", status=2) from error
    engine = create_engine(settings.database.get_secret_value(), pool_size=2, name="fairlead-kb", pool_timeout=10)
    knowledge, embedder = KnowledgeBase(engine), configured_embedder(settings)
    try:
        async with Fetcher(allowances=allowances) as fetcher:
            with Reader() as reader, _shown(quiet=quiet) as progress:
                ingest = Ingest(tenant=tenant, knowledge=knowledge, fetcher=fetcher, reader=reader, progress=progress)
                return await ingest.run(wanted, publish=Indexing(engine, embedder=embedder).publish)
    except UnknownTenant as error:
        raise CommandFailed(f"{error} with `fairlead tenants create`") from error
    except EmbeddingFailed as error:
        raise CommandFailed(
            f"The documents are stored, but not published: there are no vectors for them ({error}). Run it again."
        ) from error
    finally:
        if embedder is not None:
            await embedder.aclose()
        await engine.dispose()


def _shown(*, quiet: bool) -> "AbstractContextManager[Lines]":
    return nullcontext(Silence()) if quiet else Bar() if sys.stderr.isatty() else nullcontext(Lines())


class Lines:
    """A line for each document that something became of."""

    def expect(self, documents: int) -> None:
        """Nothing to show without a terminal."""

    def hear(self, told: "Told") -> None:
        """Show what became of one document."""
        if told.outcome in _SHOWN:
            self.say(line(told))

    def publishing(self) -> None:
        """Nothing to show without a terminal."""

    def say(self, words: str) -> None:
        """Write a line."""
        typer.echo(words, err=True)


class Silence(Lines):
    """Nothing: the whole report comes at the end."""

    def say(self, words: str) -> None:
        """Nothing."""


class Bar(Lines):
    """A bar below the lines, on a terminal; use it as a context."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("Reading", total=None)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def expect(self, documents: int) -> None:
        """Make the bar as long as there are documents."""
        self._progress.update(self._task, total=documents)

    def hear(self, told: "Told") -> None:
        """Move on by one."""
        super().hear(told)
        self._progress.advance(self._task)

    def publishing(self) -> None:
        """Say that the last step has begun."""
        self._progress.update(self._task, description="Making it searchable")

    def say(self, words: str) -> None:
        """Write a line above the bar."""
        from rich.text import Text

        self._progress.console.print(Text(words), soft_wrap=True)


def line(told: "Told") -> str:
    """Return what became of a document, harmless to a terminal."""
    more = told.problem or (counted(told.pieces, "piece") if told.pieces else "")
    return harmless(f"{told.outcome:9} {told.source}{f'  {more}' if more else ''}").replace("\n", " ")


def _summary(report: "Report", tenant: str) -> str:
    counts = report.counts
    pieces = sum(one.pieces for one in report.told)
    parts = [f"{counts[outcome]:,} {outcome}" for outcome in _ORDER if counts[outcome]]
    read = f" ({counted(pieces, 'piece')})" if pieces else ""
    seen = f" Version {report.snapshot} is what tenant {tenant} answers from now." if report.snapshot else ""
    return harmless(f"{', '.join(parts) or 'Nothing to read'}{read}.{seen}")


_ORDER: Final = ("added", "replaced", "unchanged", "removed", "skipped", "failed")


def _as_json(report: "Report", tenant: str) -> str:
    told = [
        {"source": one.source, "outcome": one.outcome, "pieces": one.pieces}
        | ({"problem": one.problem} if one.problem else {})
        for one in report.told
    ]
    counts = {outcome: report.counts[outcome] for outcome in _ORDER}
    return json.dumps({"tenant": tenant, "snapshot": report.snapshot, **counts, "documents": told})
