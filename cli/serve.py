"""The processes of an installation. Each imports its parts only when it runs: a worker needs no web server."""

from collections.abc import Sequence

from infra.settings import Settings
from schemas.agents import Lane


def gateway(settings: Settings) -> None:
    """Run the gateway."""
    from producers.gateway.process import run

    run(settings)


def orchestrator(settings: Settings) -> None:
    """Run the orchestrator."""
    from workers.orchestrator.process import run

    run(settings)


def agents(settings: Settings, lanes: Sequence[Lane]) -> None:
    """Run an agent worker."""
    from workers.lanes.process import run

    run(settings, lanes)


def dead_letters(settings: Settings) -> None:
    """Run a dead-letter worker."""
    from workers.dead_letters.process import run

    run(settings)


def upkeep(settings: Settings) -> None:
    """Run upkeep."""
    from workers.upkeep.process import run

    run(settings)
