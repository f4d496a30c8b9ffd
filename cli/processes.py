"""What runs on one machine: the product's processes and the model simulators, and how each is known to be ready."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from cli.endpoints import SimulatorEndpoints
from cli.supervisor import ChildSpec, Condition, url_ready
from infra.embedded.process import free_port
from schemas.agents import Lane

GATEWAY = "gateway"
ORCHESTRATOR = "orchestrator"
AGENTS_DISCOVERY = "agents-discovery"
AGENTS = "agents"
DEAD_LETTERS = "dead-letters"
UPKEEP = "upkeep"

_DISCOVERY_LANES = (Lane.DISCOVERY, Lane.FRONTIER_FALLBACK)
_GRACE = 12.0
_LOCAL = {
    # Somebody waits at the terminal for the turns under way.
    "FAIRLEAD_DRAIN_SECONDS": "5",
    # What Celery says at length about users is for installations, and those have their own.
    "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
}


@dataclass(frozen=True, kw_only=True)
class Process:
    """A child and the address that says whether it is ready."""

    spec: ChildSpec
    health: str

    @property
    def ready(self) -> Condition:
        """Whether it answers well."""
        return url_ready(self.health)


def product(environ: Mapping[str, str], *, port: int) -> list[Process]:
    """The product's processes; the gateway listens on `port`. Agents are two, so that one lane's trouble stays its own.

    `environ` is the whole environment they share: addresses and secrets.
    """
    others = [lane for lane in Lane if lane not in _DISCOVERY_LANES]
    return [
        _gateway(environ, port),
        _worker(ORCHESTRATOR, ["orchestrator"], environ, stop_order=1),
        _worker(AGENTS_DISCOVERY, ["agents", *_lanes(*_DISCOVERY_LANES)], environ, stop_order=2),
        _worker(AGENTS, ["agents", *_lanes(*others)], environ, stop_order=2),
        _worker(DEAD_LETTERS, ["dead-letters"], environ, stop_order=2),
        _worker(UPKEEP, ["upkeep"], environ, stop_order=3),
    ]


def simulators(environ: Mapping[str, str]) -> tuple[list[Process], SimulatorEndpoints]:
    """The two model simulators and where they will be."""
    tgi, openai = _simulator("tgi", environ), _simulator("openai", environ)
    return [tgi, openai], SimulatorEndpoints(tgi=_base(tgi), openai=_base(openai))


def _gateway(environ: Mapping[str, str], port: int) -> Process:
    more = {"FAIRLEAD_GATEWAY_PORT": str(port), "FAIRLEAD_METRICS_PORT": "-1"}
    spec = ChildSpec(name=GATEWAY, argv=_fairlead("serve", "gateway"), env={**environ, **more}, grace=_GRACE)
    return Process(spec=spec, health=f"http://127.0.0.1:{port}/readyz")


def _worker(name: str, command: list[str], environ: Mapping[str, str], *, stop_order: int) -> Process:
    port = free_port()
    env = {**_LOCAL, **environ, "FAIRLEAD_METRICS_PORT": str(port)}
    spec = ChildSpec(name=name, argv=_fairlead("serve", *command), env=env, stop_order=stop_order, grace=_GRACE)
    return Process(spec=spec, health=f"http://127.0.0.1:{port}/healthz")


def _simulator(dialect: str, environ: Mapping[str, str]) -> Process:
    port = free_port()
    command = _fairlead("simulate", dialect, "--port", str(port))
    spec = ChildSpec(name=f"simulate-{dialect}", argv=command, env=environ, stop_order=4, grace=_GRACE)
    return Process(spec=spec, health=f"http://127.0.0.1:{port}/health")


def _fairlead(*words: str) -> list[str]:
    # -P: what lies in the directory this was started from must not take the place of our modules.
    return [sys.executable, "-P", "-m", "cli.main", *words]


def _lanes(*lanes: Lane) -> list[str]:
    return [word for lane in lanes for word in ("--lane", lane.value)]


def _base(simulator: Process) -> str:
    return simulator.health.removesuffix("/health")
