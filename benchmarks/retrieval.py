"""How well a knowledge base is searched: by words, by vectors and by both, among 100, 1,000 and 10,000 pieces.

`python -m benchmarks.retrieval --data DIR` prints one JSON line; `benchmarks/corpus.py` says what DIR holds and how
questions are made of it. The vectors are those of the embedded default. A question is found when its document is among
the sources of the first five passages; the reciprocal rank is that of the document among the first ten. Then: whether a
tenant of three pieces beside the large ones gets its three, and how well the certainty tells questions that half of the
documentation answers from those that only the other half does.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import uvloop
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.corpus import Question, chosen, documentation, talk
from benchmarks.harness import NOWHERE, percentile, servers, show, told
from infra.embedded.servers import Endpoints
from infra.embeddings.words import asked_terms
from infra.postgres.engine import create_engine
from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.knowledge_indexing import Indexing
from infra.postgres.knowledge_search import FITTED, KnowledgeSearch, Ranking
from infra.postgres.tenants import Tenants
from schemas.knowledge import Document, Piece
from schemas.knowledge_policy import KnowledgePolicy
from workers.researcher.researcher import Researcher

SIZES: Final = (100, 1_000, 10_000)
RANKINGS: Final[Mapping[str, Ranking]] = {
    "words": Ranking(words=1, vectors=0),
    "vectors": Ranking(words=0, vectors=1),
    "hybrid": FITTED,
}
_SHOWN: Final = 10
_FIRST: Final = 5

Figures = dict[str, object]


class Bench:
    """Fills knowledge bases and asks them."""

    def __init__(self, engine: AsyncEngine, data: Path, *, step: int) -> None:
        self._engine = engine
        self._data = data
        self._step = step

    async def size(self, pieces: int, *, stripped: bool) -> Figures:
        """Return how well one knowledge base of so many pieces is searched in each way."""
        tenant = f"{'stripped' if stripped else 'whole'}-{pieces}"
        documents, questions = chosen(documentation(self._data, stripped=stripped), talk(self._data), pieces)
        began = time.perf_counter()
        await self._fill(tenant, documents)
        filled = time.perf_counter() - began
        asked = questions[:: self._step] if stripped else questions
        ways = {name: await self._way(tenant, ranking, asked) for name, ranking in RANKINGS.items()}
        return {"questions": len(asked), "fill_s": round(filled, 1), **ways}

    async def small_tenant(self) -> Figures:
        """Return how many of its three pieces a small tenant gets, whatever is asked."""
        words = ("refund", "invoice", "holiday")
        pieces = tuple(Piece(text=f"Our {word} policy is written here.") for word in words)
        await self._fill("small", [Document(source="small.md", sha256="0", pieces=pieces)])
        search = KnowledgeSearch(self._engine)
        found = [
            len((await search.search("small", asked_terms(question.text, ["en"]), most=3)).hits)
            for question in [Question(f"policy {word}", "small.md", "") for word in words]
        ]
        return {"pieces": 3, "fewest_found": min(found)}

    async def certainty(self) -> Figures:
        """Return how the certainty of questions that are answered differs from that of questions that are not."""
        pairs = documentation(self._data, stripped=True)
        await self._fill("half", [document for document, _ in pairs[::2]])
        researcher = Researcher(self._engine, policy=KnowledgePolicy(deadline=30))
        scores: list[list[float]] = [[], []]
        for number, (_, questions) in enumerate(pairs):
            for question in questions[:: self._step]:
                found = await researcher.retrieve("half", question.text, language="en")
                scores[number % 2].append(found.score)
        answered, others = scores
        above = sum((one > other) + 0.5 * (one == other) for one in answered for other in others)
        threshold = KnowledgePolicy().threshold
        return {
            "questions": len(answered) + len(others),
            "auroc": round(above / (len(answered) * len(others)), 3),
            "answerable_of_answered": _share([score >= threshold for score in answered]),
            "answerable_of_others": _share([score >= threshold for score in others]),
        }

    async def _fill(self, tenant: str, documents: Sequence[Document]) -> None:
        await Tenants(self._engine, pepper=SecretStr("bench")).create(tenant, name=tenant)
        knowledge = KnowledgeBase(self._engine)
        for document in documents:
            await knowledge.put(tenant, document)
        await Indexing(self._engine).publish(tenant)

    async def _way(self, tenant: str, ranking: Ranking, questions: Sequence[Question]) -> Figures:
        search = KnowledgeSearch(self._engine, ranking=ranking)
        base = await search.base(tenant)
        if base is None:
            raise RuntimeError("The knowledge base was not published.")
        ranks: list[int | None] = []
        firsts: list[bool] = []
        times: list[float] = []
        for question in questions:
            began = time.perf_counter()
            found = await search.search(tenant, asked_terms(question.text, base.languages), most=_SHOWN)
            times.append(1e3 * (time.perf_counter() - began))
            sources = [hit.source for hit in found.hits]
            firsts.append(question.source in sources[:_FIRST])
            distinct = list(dict.fromkeys(sources))
            ranks.append(distinct.index(question.source) + 1 if question.source in distinct else None)
        return {
            "recall_at_5": _share(firsts),
            "mrr_at_10": round(sum(1 / rank for rank in ranks if rank) / len(ranks), 3),
            "p50_ms": round(percentile(times, 0.5), 1),
            "p95_ms": round(percentile(times, 0.95), 1),
        }


def _share(found: Sequence[bool]) -> float:
    return round(sum(found) / len(found), 3) if found else 0.0


async def measure(database: str, data: Path, *, sizes: Sequence[int], step: int) -> dict[str, object]:
    """Return the figures of every size."""
    engine = create_engine(database, pool_size=2, name="fairlead-bench")
    try:
        bench = Bench(engine, data, step=step)
        figures: dict[str, object] = {}
        for size in sizes:
            figures[f"{size} pieces"] = await bench.size(size, stripped=True)
        figures["faq, 1000 pieces"] = await bench.size(1_000, stripped=False)
        return {**figures, "small tenant": await bench.small_tenant(), "certainty": await bench.certainty()}
    finally:
        await engine.dispose()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description="Measure retrieval.")
    parser.add_argument("--data", type=Path, required=True, help="folder of public data; see benchmarks/corpus.py")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="pieces of the knowledge bases")
    parser.add_argument("--step", type=int, default=1, help="ask every so many questions")
    parser.add_argument("--database", help="an empty, migrated database; one is started if absent")
    wanted = parser.parse_args()
    given = Endpoints(kafka=NOWHERE, redis=NOWHERE, database=wanted.database) if wanted.database else None
    with servers(given, kafka=False) as found:
        work = measure(found.database, wanted.data, sizes=wanted.sizes, step=wanted.step)
        show(told("retrieval", lambda: uvloop.run(work)))


if __name__ == "__main__":
    main()
