"""The port: what turns texts into vectors."""

from collections.abc import Sequence
from typing import Protocol


class EmbeddingFailed(Exception):
    """No vectors this time. Search goes on by words; ask again later for what is to be stored."""


class Embedder(Protocol):
    """Texts in, vectors of one space out."""

    @property
    def space(self) -> str:
        """Name of the space: model, dimensions and version. Vectors of different spaces cannot be compared."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text, in order, all of the same length.

        Raises:
            EmbeddingFailed: not even some of them.
        """
        ...
