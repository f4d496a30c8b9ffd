"""How well a knowledge base is searched: by words, by vectors and by both, among 100, 1,000 and 10,000 pieces.

`python -m benchmarks.retrieval --data DIR` prints one JSON line; `benchmarks/corpus.py` says what DIR holds and how
questions are made of it. A question is found when its document is among the sources of the first five passages; the
reciprocal rank is that of the document among the first ten. Then: whether a tenant of three pieces beside the large
ones gets its three, and how well the certainty tells questions that half of the documentation answers from those that
only the other half does.

Documents are in two halves. How is searched was chosen on the questions of one (`--half tuning`); what is reported are
those of the other. What both find together is compared with each alone by intervals of 95 %: a bootstrap over the
documents, whose questions belong together.

The vectors are those of the embedded default, or with `--endpoint` and `--model` those of any endpoint with OpenAI's
API.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

import numpy as np
import uvloop
from numpy.typing import NDArray
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.corpus import Filled, Half, Question, bases, documentation, talk
from benchmarks.harness import NOWHERE, percentile, servers, show, told
from infra.embedded.servers import Endpoints
from infra.embeddings.endpoint import EndpointEmbedder
from infra.embeddings.words import asked_terms
from infra.postgres.engine import create_engine
from infra.postgres.knowledge import KnowledgeBase
from infra.postgres.knowledge_indexing import Indexing
from infra.postgres.knowledge_search import ENDPOINT, FITTED, KnowledgeSearch, Ranking
from infra.postgres.tenants import Tenants
from schemas.knowledge import Document, Piece
from schemas.knowledge_policy import KnowledgePolicy
from workers.researcher.researcher import Researcher

SIZES: Final = (100, 1_000, 10_000)
_SHOWN: Final = 10
_FIRST: Final = 5
_DRAWS: Final = 5_000
"""Of the bootstrap."""

Figures = dict[str, object]
_Numbers = NDArray[np.float64]


@dataclass
class Way:
    """What one way of searching found, a number a question."""

    firsts: list[bool] = field(default_factory=list[bool])
    """Whether the document is among the first."""
    reciprocals: list[float] = field(default_factory=list[float])
    """Of its rank, or 0."""
    times: list[float] = field(default_factory=list[float])
    """Milliseconds."""

    def figures(self) -> Figures:
        """Return the means."""
        return {
            "recall_at_5": _share(self.firsts),
            "mrr_at_10": _share(self.reciprocals),
            "p50_ms": round(percentile(self.times, 0.5), 1),
            "p95_ms": round(percentile(self.times, 0.95), 1),
        }


class Bench:
    """Fills knowledge bases and asks them."""

    def __init__(
        self, engine: AsyncEngine, data: Path, *, half: Half, step: int, embedder: EndpointEmbedder | None
    ) -> None:
        self._engine = engine
        self._data = data
        self._half: Half = half
        self._step = step
        self._embedder = embedder
        self._talk = list(talk(data))

    async def size(self, pieces: int) -> Figures:
        """Return how well knowledge bases of so many pieces are searched in each way."""
        filled = bases(documentation(self._data, stripped=True), self._talk, pieces)
        return await self._measured(f"pieces-{pieces}", [(taken, self._asked(asked)) for taken, asked in filled])

    async def as_they_are(self) -> Figures:
        """Return how well frequently asked questions find documents that keep titles and headings; there are few."""
        return await self._measured("faq", bases(documentation(self._data, stripped=False), self._talk, 1_000))

    async def small_tenant(self) -> Figures:
        """Return how many of its three pieces a small tenant gets, whatever is asked."""
        words = ("refund", "invoice", "holiday")
        pieces = tuple(Piece(text=f"Our {word} policy is written here.") for word in words)
        await self._fill("small", [Document(source="small.md", sha256="0", pieces=pieces)])
        search = KnowledgeSearch(self._engine)
        found = [
            len((await search.search("small", asked_terms(f"policy {word}", ["en"]), most=3)).hits) for word in words
        ]
        return {"pieces": 3, "fewest_found": min(found)}

    async def certainty(self) -> Figures:
        """Return how the certainty of questions that are answered differs from that of questions that are not."""
        pairs = documentation(self._data, stripped=True)
        await self._fill("half", [document for document, _ in pairs[::2]])
        researcher = Researcher(self._engine, policy=KnowledgePolicy(deadline=30), embedder=self._embedder)
        scores: list[list[float]] = [[], []]
        for number, (_, questions) in enumerate(pairs):
            for question in self._asked(questions):
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

    def _asked(self, questions: Sequence[Question]) -> list[Question]:
        return [question for question in questions if question.half == self._half][:: self._step]

    async def _fill(self, tenant: str, documents: Sequence[Document]) -> None:
        await Tenants(self._engine, pepper=SecretStr("bench")).create(tenant, name=tenant)
        knowledge = KnowledgeBase(self._engine)
        for document in documents:
            await knowledge.put(tenant, document)
        await Indexing(self._engine, embedder=self._embedder).publish(tenant)

    async def _measured(self, name: str, filled: Sequence[Filled]) -> Figures:
        both = FITTED if self._embedder is None else ENDPOINT
        rankings = {
            "words": replace(both, vectors=0, lean=0),
            "vectors": replace(both, words=0, lean=0),
            "hybrid": both,
        }
        ways = {way: Way() for way in rankings}
        sources: list[str] = []
        seconds = 0.0
        for number, (documents, questions) in enumerate(filled):
            tenant = f"{name}-{number}"
            began = time.perf_counter()
            await self._fill(tenant, documents)
            seconds += time.perf_counter() - began
            sources.extend(question.source for question in questions)
            for question in questions:
                vector = None if self._embedder is None else (await self._embedder.embed([question.text]))[0]
                for way, ranking in rankings.items():
                    await self._ask(tenant, ranking, question, vector, ways[way])
        told_of = {"bases": len(filled), "questions": len(sources), "fill_s": round(seconds, 1)}
        return {**told_of, **{way: found.figures() for way, found in ways.items()}, **_gained(ways, sources)}

    async def _ask(
        self, tenant: str, ranking: Ranking, question: Question, vector: list[float] | None, way: Way
    ) -> None:
        search = KnowledgeSearch(self._engine, ranking=ranking)
        space = None if self._embedder is None else self._embedder.space
        # Everything here is English, so no other endings have to be tried.
        terms = asked_terms(question.text, ["en"])
        began = time.perf_counter()
        found = await search.search(tenant, terms, most=_SHOWN, space=space, vector=vector)
        way.times.append(1e3 * (time.perf_counter() - began))
        sources = [hit.source for hit in found.hits]
        distinct = list(dict.fromkeys(sources))
        way.firsts.append(question.source in sources[:_FIRST])
        way.reciprocals.append(1 / (distinct.index(question.source) + 1) if question.source in distinct else 0.0)


def _gained(ways: Mapping[str, Way], sources: Sequence[str]) -> Figures:
    """Return what both together have above each alone: the mean, and the interval of 95 %."""
    both = ways["hybrid"]
    return {
        f"hybrid minus {way}": {
            "recall_at_5": difference(both.firsts, ways[way].firsts, sources),
            "mrr_at_10": difference(both.reciprocals, ways[way].reciprocals, sources),
        }
        for way in ("words", "vectors")
    }


def difference(ones: Sequence[float], others: Sequence[float], groups: Sequence[str]) -> list[float]:
    """Return the mean of paired differences, and the ends of its bootstrap interval of 95 %.

    Args:
        ones: a number a question.
        others: of the same questions.
        groups: what each question belongs to; drawn are groups, as the questions of one are alike.
    """
    apart = np.array(ones, dtype=np.float64) - np.array(others, dtype=np.float64)
    _, numbers = np.unique(np.array(groups), return_inverse=True)
    sums, counts = np.bincount(numbers, weights=apart), np.bincount(numbers)
    drawn = np.random.default_rng(0).integers(len(sums), size=(_DRAWS, len(sums)))
    means = cast("_Numbers", sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = cast("list[float]", np.quantile(means, [0.025, 0.975]).tolist())
    return [round(float(apart.mean()), 3), round(low, 3), round(high, 3)]


def _share(found: Sequence[float]) -> float:
    return round(sum(found) / len(found), 3) if found else 0.0


async def measure(wanted: argparse.Namespace, database: str) -> dict[str, object]:
    """Return the figures of every size."""
    engine = create_engine(database, pool_size=2, name="fairlead-bench")
    embedder = None
    if wanted.endpoint:
        key = SecretStr(wanted.api_key)
        embedder = EndpointEmbedder(model=wanted.model, base_url=wanted.endpoint, api_key=key, seconds=600)
    try:
        bench = Bench(engine, wanted.data, half=wanted.half, step=wanted.step, embedder=embedder)
        figures: dict[str, object] = {"half": wanted.half, "vectors": embedder.space if embedder else "fitted"}
        for size in wanted.sizes:
            figures[f"{size} pieces"] = await bench.size(size)
        figures["faq, 1000 pieces"] = await bench.as_they_are()
        return {**figures, "small tenant": await bench.small_tenant(), "certainty": await bench.certainty()}
    finally:
        if embedder is not None:
            await embedder.aclose()
        await engine.dispose()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description="Measure retrieval.")
    parser.add_argument("--data", type=Path, required=True, help="folder of public data; see benchmarks/corpus.py")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="pieces of the knowledge bases")
    parser.add_argument("--half", choices=("test", "tuning"), default="test", help="whose questions are asked")
    parser.add_argument("--step", type=int, default=1, help="ask every so many questions of a knowledge base")
    parser.add_argument("--endpoint", help="base URL of an endpoint that makes the vectors, up to /v1")
    parser.add_argument("--model", default="", help="its model")
    parser.add_argument("--api-key", default="", help="its key, if it wants one")
    parser.add_argument("--database", help="an empty, migrated database; one is started if absent")
    wanted = parser.parse_args()
    given = Endpoints(kafka=NOWHERE, redis=NOWHERE, database=wanted.database) if wanted.database else None
    with servers(given, kafka=False) as found:
        show(told("retrieval", lambda: uvloop.run(measure(wanted, found.database))))


if __name__ == "__main__":
    main()
