"""The providers of one process, as settings and policy name them."""

from typing import Final
from urllib.parse import urlsplit

import httpx2

from infra.settings import Settings
from schemas.completions import LoadFailed, Provider
from schemas.policy import ModelPolicy, Policy
from workers.providers.local import LocalProvider
from workers.providers.local_model import LocalFiles
from workers.providers.offline import OfflineProvider
from workers.providers.openai import OpenAIProvider
from workers.providers.tgi import TgiProvider
from workers.providers.token_counts import TokenCounts
from workers.providers.wire import Wire

_NO_KEY: Final = "-"


class AddressInvalid(Exception):
    """A configured address is none. The message names the setting."""


class Backends:
    """Built once per process; every provider shares its connections.

    What is not configured is answered by the offline provider: discovery without a base URL, the frontier with
    neither base URL nor key. A key alone means the official API.
    """

    def __init__(self, settings: Settings, policy: Policy) -> None:
        """Connect to nothing yet: the first call does.

        Raises:
            AddressInvalid: a base URL is none.
        """
        _check("FAIRLEAD_DISCOVERY_BASE_URL", settings.discovery_base_url)
        _check("FAIRLEAD_FRONTIER_BASE_URL", settings.frontier_base_url)
        self._wire = Wire()
        self._models = policy.models
        self._counts = self._counters(settings, policy)
        self._providers: dict[str, Provider] = {
            "discovery": self._discovery(settings, policy),
            "frontier": self._frontier(settings),
            "offline": OfflineProvider(),
        }

    def for_model(self, name: str) -> tuple[Provider, ModelPolicy]:
        """Return who serves the policy's model `name`, and under which name it is known there.

        Raises:
            KeyError: the policy has no such model; a validated policy names no other.
        """
        model = self._models[name]
        return self._providers[model.backend], model

    def skipped(self, name: str) -> str | None:
        """Return why the policy's model `name` is not to be asked in this process at all; None if it is.

        Raises:
            KeyError: as `for_model`.
        """
        provider, _ = self.for_model(name)
        return LoadFailed.code if isinstance(provider, LocalProvider) and provider.slot.failure else None

    def counts(self, name: str) -> TokenCounts | None:
        """Return who counts the tokens of the policy's model `name`; None where its server does not."""
        return self._counts.get(name)

    def degraded(self) -> dict[str, str | None]:
        """Return, for each backend that lives in this process, a sentence on what it cannot do, or None."""
        return {
            f"{name} model": provider.slot.failure
            for name, provider in self._providers.items()
            if isinstance(provider, LocalProvider)
        }

    async def canary(self) -> None:
        """Make sure that the discovery server has its adapters, where it would not say so itself (TGI).

        Raises:
            ProviderError: it has not, or does not answer.
        """
        discovery = self._providers["discovery"]
        if isinstance(discovery, TgiProvider):
            await discovery.canary()

    async def aclose(self) -> None:
        """Close every provider, then the connections."""
        for provider in self._providers.values():
            await provider.aclose()
        await self._wire.aclose()

    def _discovery(self, settings: Settings, policy: Policy) -> Provider:
        if settings.discovery_dialect == "local":
            files = LocalFiles.of(settings, policy)
            return LocalProvider(files.load, load_seconds=settings.local_load_seconds, known_adapters=files.adapters)
        url, key = settings.discovery_base_url, settings.discovery_api_key.get_secret_value() or _NO_KEY
        if not url:
            return OfflineProvider()
        if settings.discovery_dialect == "openai":
            return OpenAIProvider(name="vllm", wire=self._wire, base_url=v1(url), api_key=key, logprobs=True)
        served = (model for model in policy.models.values() if model.backend == "discovery")
        return TgiProvider(
            name="tgi",
            wire=self._wire,
            base_url=url.rstrip("/").removesuffix("/v1"),
            api_key=key,
            known_adapters={model.adapter for model in served if model.adapter is not None},
        )

    def _counters(self, settings: Settings, policy: Policy) -> dict[str, TokenCounts]:
        url, dialect = settings.discovery_base_url, settings.discovery_dialect
        if not url or dialect == "local":
            return {}
        key = settings.discovery_api_key.get_secret_value() or _NO_KEY
        place = url.rstrip("/").removesuffix("/v1")
        return {
            name: TokenCounts(wire=self._wire, base_url=place, dialect=dialect, model=model.model, api_key=key)
            for name, model in policy.models.items()
            if model.backend == "discovery"
        }

    def _frontier(self, settings: Settings) -> Provider:
        url, key = settings.frontier_base_url, settings.frontier_api_key.get_secret_value()
        if not (url or key):
            return OfflineProvider()
        return OpenAIProvider(name="openai", wire=self._wire, base_url=v1(url) if url else None, api_key=key or _NO_KEY)


def _check(setting: str, url: str | None) -> None:
    """Refuse what is no address: without a scheme, one of the official clients would take it for a model on its hub."""
    if not url:
        return
    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL:
        address = httpx2.URL("")
    if address.scheme not in {"http", "https"} or not address.host:
        raise AddressInvalid(f"{setting} is no address; write it as http://host:port or https://host/v1")
    if address.userinfo:
        raise AddressInvalid(f"{setting} holds a password; give the server's key in the setting beside it, _API_KEY")


def v1(url: str) -> str:
    """Return `url` with the API's usual path if it has none: a bare `http://host:port` is what people write."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1"
