"""The sample knowledge base of a local system: loaded while its processes start, and only when it has changed."""

import asyncio
import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources

from sqlalchemy.ext.asyncio import AsyncEngine

from cli.local_keys import TENANT
from infra.postgres.engine import create_engine
from infra.postgres.knowledge import KnowledgeBase

FOLDER = "torvane"
"""What its sources begin with."""


@contextmanager
def loading_samples(database: str, *, wanted: bool) -> Generator[Callable[[], None]]:
    """Load the samples beside whatever the context does; what it is given waits until they are there.

    Raises:
        LedgerUnavailable: on waiting; PostgreSQL does not answer.
    """
    if not wanted:
        yield lambda: None
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="samples") as pool:
        loading = pool.submit(lambda: asyncio.run(load_samples(database)))
        yield loading.result


async def load_samples(database: str) -> None:
    """Put the samples into the local tenant's knowledge base and publish them; nothing else in it is touched.

    Raises:
        LedgerUnavailable: PostgreSQL does not answer.
    """
    engine = create_engine(database, pool_size=1, name="fairlead-samples")
    try:
        knowledge = KnowledgeBase(engine)
        files = {f"{FOLDER}/{name}": raw for name, raw in _samples()}
        stored = await knowledge.digests(TENANT)
        changed = [source for source, raw in files.items() if stored.get(source) != hashlib.sha256(raw).hexdigest()]
        gone = [source for source in stored if source.startswith(f"{FOLDER}/") and source not in files]
        if changed or gone:
            await _store(engine, knowledge, {source: files[source] for source in changed}, gone)
    finally:
        await engine.dispose()


async def _store(
    engine: AsyncEngine, knowledge: KnowledgeBase, changed: Mapping[str, bytes], gone: Sequence[str]
) -> None:
    # A second to import, and most starts find everything as it was.
    from infra.postgres.knowledge_indexing import Indexing
    from workers.knowledge.media import of_name
    from workers.knowledge.read import read

    for source, raw in changed.items():
        media = of_name(source)
        if media is not None:
            await knowledge.put(TENANT, read(raw, media, source=source))
    for source in gone:
        await knowledge.remove(TENANT, source)
    await Indexing(engine).publish(TENANT)


def _samples() -> Iterator[tuple[str, bytes]]:
    for file in sorted(resources.files("infra.samples").iterdir(), key=lambda file: file.name):
        if file.name.endswith((".md", ".jsonl")):
            yield file.name, file.read_bytes()
