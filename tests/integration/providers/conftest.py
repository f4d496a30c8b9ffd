"""Each way to a model server, over one suite."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import pytest

from infra.policy import load_policy
from infra.settings import Settings
from schemas.completions import CompletionRequest, ModelClocks, Provider
from simulators.testing import SimulatorHandle, running
from tests.integration.providers.support import PATIENT, asking
from workers.providers.backends import Backends

Kind = Literal["tgi", "frontier", "vllm"]
KINDS: tuple[Kind, ...] = ("tgi", "frontier", "vllm")


def settings_for(kind: Kind, url: str) -> Settings:
    """Return settings that send this kind of call to `url`."""
    if kind == "frontier":
        return Settings(frontier_base_url=url)
    return Settings(discovery_base_url=url, discovery_dialect="tgi" if kind == "tgi" else "openai")


@dataclass
class Way:
    """One provider as the process would build it."""

    kind: Kind
    provider: Provider
    model: str
    adapter: str | None

    def asking(
        self, *, ordinal: int = 1, clocks: ModelClocks = PATIENT, said: str = "What does it cost?"
    ) -> CompletionRequest:
        """Return a request for this provider's model."""
        return asking(self.model, self.adapter, ordinal=ordinal, clocks=clocks, said=said)


@asynccontextmanager
async def way_to(kind: Kind, url: str) -> AsyncGenerator[Way]:
    """Build the backends for `url` and give the provider of this kind."""
    backends = Backends(settings_for(kind, url), load_policy())
    try:
        provider, model = backends.for_model("frontier" if kind == "frontier" else "discovery-slm")
        yield Way(kind, provider, model.model, model.adapter)
    finally:
        await backends.aclose()


WayTo = Callable[[str], object]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """The kind of provider under test."""
    return request.param


@pytest.fixture
async def simulator(kind: Kind) -> AsyncGenerator[SimulatorHandle]:
    """A simulator of the server this kind of provider talks to."""
    names = [*load_policy().served_by("frontier"), "discovery"]
    async with running("tgi" if kind == "tgi" else "openai", models=names) as handle:
        yield handle


@pytest.fixture
async def way(kind: Kind, simulator: SimulatorHandle) -> AsyncGenerator[Way]:
    """The provider, built for the simulator."""
    async with way_to(kind, simulator.base_url) as built:
        yield built
