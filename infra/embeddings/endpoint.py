"""Vectors from any endpoint with OpenAI's API."""

from collections.abc import Sequence
from typing import Final

from openai import AsyncOpenAI, OpenAIError
from pydantic import SecretStr

from infra.embeddings.embedder import EmbeddingFailed

BATCH: Final = 96
"""Texts of one request."""


class EndpointEmbedder:
    """One model at one endpoint. No retries: who asks knows better when to ask again."""

    def __init__(
        self, *, model: str, base_url: str | None, api_key: SecretStr, dims: int | None = None, seconds: float = 30
    ) -> None:
        """
        Args:
            model: its name at the endpoint.
            base_url: of the API, up to `/v1`; the official one if None.
            api_key: an endpoint that wants none may be given any.
            dims: asked for, of models that can shorten their vectors; theirs if None.
            seconds: that one request may take.
        """
        self._model = model
        self._dims = dims
        key = api_key.get_secret_value() or "-"
        self._client = AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=seconds)

    @property
    def space(self) -> str:
        """Name of the space."""
        return f"endpoint-{self._model}" + (f"-{self._dims}" if self._dims else "")

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text, in order, asked for in batches.

        Raises:
            EmbeddingFailed: a request failed, or its answer has another shape.
        """
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            vectors.extend(await self._batch(texts[start : start + BATCH]))
        return vectors

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def _batch(self, texts: Sequence[str]) -> list[list[float]]:
        try:
            if self._dims is None:
                found = await self._client.embeddings.create(model=self._model, input=list(texts))
            else:
                found = await self._client.embeddings.create(
                    model=self._model, input=list(texts), dimensions=self._dims
                )
        except OpenAIError as error:
            raise EmbeddingFailed(f"the embeddings endpoint gave none: {type(error).__name__}") from error
        vectors = [one.embedding for one in sorted(found.data, key=lambda one: one.index)]
        if len(vectors) != len(texts) or len({len(vector) for vector in vectors}) > 1 or not all(vectors):
            raise EmbeddingFailed("the embeddings endpoint gave vectors of another number or length than asked for")
        return vectors
