"""The embedder that the settings name."""

from typing import TYPE_CHECKING

from infra.settings import Settings

if TYPE_CHECKING:
    from infra.embeddings.endpoint import EndpointEmbedder


def configured_embedder(settings: Settings) -> "EndpointEmbedder | None":
    """Return the endpoint's embedder; None for the embedded default, fitted on each knowledge base."""
    if settings.embeddings_model is None:
        return None
    # Its client takes most of a second to import, in each process that starts.
    from infra.embeddings.endpoint import EndpointEmbedder

    return EndpointEmbedder(
        model=settings.embeddings_model, base_url=settings.embeddings_base_url, api_key=settings.embeddings_api_key
    )
