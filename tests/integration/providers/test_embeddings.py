"""Vectors from an endpoint with OpenAI's API: in order, in batches, once; every failure has one name."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from infra.embeddings.embedder import EmbeddingFailed
from infra.embeddings.endpoint import BATCH, EndpointEmbedder
from simulators.testing import SimulatorHandle, running


@pytest.fixture
async def simulator() -> AsyncIterator[SimulatorHandle]:
    """A model server that embeds."""
    async with running("openai") as handle:
        yield handle


def _embedder(base_url: str, *, dims: int | None = 64, seconds: float = 30) -> EndpointEmbedder:
    return EndpointEmbedder(model="small", base_url=base_url, api_key=SecretStr(""), dims=dims, seconds=seconds)


async def test_each_text_has_its_vector_in_order(simulator: SimulatorHandle) -> None:
    """More texts than one request takes come back in their order, of the length asked for, in a space of that name."""
    embedder = _embedder(f"{simulator.base_url}/v1")
    texts = [f"text number {number}" for number in range(BATCH + 3)]
    vectors = await embedder.embed(texts)
    assert (len(vectors), {len(vector) for vector in vectors}) == (BATCH + 3, {64})
    assert vectors[-1] == (await embedder.embed(texts[-1:]))[0]
    assert embedder.space == "endpoint-small-64"
    assert await embedder.embed([]) == []
    await embedder.aclose()


async def test_nobody_there_is_a_failure(simulator: SimulatorHandle) -> None:
    """An address where nothing answers, and a path that is none, fail with our own error."""
    for base_url in ("http://127.0.0.1:9/v1", f"{simulator.base_url}/nowhere"):
        embedder = _embedder(base_url)
        with pytest.raises(EmbeddingFailed):
            await embedder.embed(["text"])
        await embedder.aclose()
