"""The embedder that the settings name."""

from infra.embeddings.endpoint import EndpointEmbedder
from infra.settings import Settings


def configured_embedder(settings: Settings) -> EndpointEmbedder | None:
    """Return the endpoint's embedder; None for the embedded default, fitted on each knowledge base."""
    if settings.embeddings_model is None:
        return None
    return EndpointEmbedder(
        model=settings.embeddings_model, base_url=settings.embeddings_base_url, api_key=settings.embeddings_api_key
    )
