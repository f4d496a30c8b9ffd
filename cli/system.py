"""A whole system on this machine: what is not given is started, and everything ends with the context."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from cli.endpoints import EndpointsFile, SimulatorEndpoints
from cli.local_keys import LocalKeys, local_keys
from cli.processes import Process, product, simulators
from cli.samples import loading_samples
from cli.state import LocalSecrets, kept_secrets, opened_log, sole_use
from cli.supervisor import Backoff, Fall, Supervisor
from infra.embedded.errors import EmbeddedError
from infra.embedded.process import free_port
from infra.embedded.servers import EmbeddedServers
from infra.embedded.topics import PARTITIONS
from infra.kafka.topics import create_topics
from infra.postgres.migrate import upgrade_async
from schemas.names import TOPIC_TURNS

LOG = "fairlead.log"
READY_SECONDS = 90.0

_BROKER_FETCH_MS = "5"
_MODELS = ("FAIRLEAD_DISCOVERY_BASE_URL", "FAIRLEAD_FRONTIER_BASE_URL", "FAIRLEAD_FRONTIER_API_KEY", "OPENAI_API_KEY")
_DIALECT = "FAIRLEAD_DISCOVERY_DIALECT"

T = TypeVar("T")


class PortTakenError(EmbeddedError):
    """The gateway cannot listen where it should."""

    def __init__(self, *, port: int) -> None:
        super().__init__(f"Something listens on port {port} of 127.0.0.1 already: choose another with --port.")


class DatabaseError(EmbeddedError):
    """The database could not be brought to the schema of this version."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"The database could not be migrated ({type(error).__name__}): look at FAIRLEAD_DATABASE and its log; "
            "`fairlead doctor` says more."
        )


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the environment gives, so that it is not started here."""

    kafka: str | None
    redis: str | None
    database: str | None
    models: bool
    """Whether any model server, key or model of our own is given: then none is simulated."""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Given":
        """Look into an environment; an empty value gives nothing."""
        return cls(
            kafka=environ.get("FAIRLEAD_KAFKA") or None,
            redis=environ.get("FAIRLEAD_REDIS") or None,
            database=environ.get("FAIRLEAD_DATABASE") or None,
            models=any(environ.get(name) for name in _MODELS) or environ.get(_DIALECT) == "local",
        )


class RunningSystem:
    """A system whose processes all answered well when it was handed over."""

    def __init__(
        self, *, state: Path, log: Path, endpoints: EndpointsFile, supervisor: Supervisor, servers: EmbeddedServers
    ) -> None:
        self.state = state
        self.log = log
        """Every process's lines, each under its name."""
        self.endpoints = endpoints
        """As at the start; the process ids now are `processes`."""
        self._supervisor = supervisor
        self._servers = servers
        self._expected = frozenset(servers.processes)

    @property
    def processes(self) -> dict[str, int]:
        """Name and process id of everything that runs here now."""
        return {**self._servers.processes, **self._supervisor.processes}

    @property
    def fallen(self) -> list[Fall]:
        """The processes that ended unasked, oldest first."""
        return list(self._supervisor.fallen)

    def lend(self, name: str, *more: Mapping[str, str]) -> None:
        """Give each of the next starts of a process one of these on top of its environment, and later ones nothing.

        Raises:
            KeyError: there is no such process.
        """
        self._supervisor.lend(name, *more)

    def kill(self, name: str) -> None:
        """Crash a process or an embedded server, as SIGKILL does. A process is started again a moment later.

        Raises:
            KeyError: it does not run here.
        """
        if name in self._servers.processes:
            self._servers.kill(name)
        else:
            os.kill(self._supervisor.processes[name], signal.SIGKILL)

    def stop(self, name: str) -> None:
        """End a process in good order and keep it down.

        Raises:
            KeyError: there is no such process.
        """
        self._supervisor.hold(name)

    def start(self, name: str) -> None:
        """Let a stopped process run again.

        Raises:
            KeyError: there is no such process.
        """
        self._supervisor.release(name)

    def restart(self, server: str) -> None:
        """Start `redis` or `postgres` again where it was. The in-memory broker would come back elsewhere."""
        self._servers.restart(server)

    def trouble(self, *, seconds: float) -> str | None:
        """Watch for so many seconds; return why the system cannot go on, or None while it can."""
        if self._supervisor.wait(seconds=seconds):
            return str(self._supervisor.failure or "It was asked to stop.")
        fallen = self._expected - self._servers.processes.keys()
        return f"The embedded {', '.join(sorted(fallen))} ended unasked; the log says why." if fallen else None


@contextmanager
def running_system(
    state: Path,
    *,
    port: int = 0,
    environ: Mapping[str, str] | None = None,
    show: TextIO | None = None,
    colour: bool = False,
    log: Path | None = None,
    seconds: float = READY_SECONDS,
    backoff: Backoff | None = None,
    samples: bool = False,
    offline: bool = False,
) -> Generator[RunningSystem]:
    """Run a whole system while the context lasts. Works beside an event loop of the caller's; handles no signals.

    Args:
        state: directory of everything it writes.
        port: the gateway's; 0 takes a free one.
        environ: what is given (`FAIRLEAD_*`, `OPENAI_API_KEY`) and what children inherit; this process's if absent.
        show: where the processes' lines are shown as well, `colour` or plain.
        log: file of all lines; `fairlead.log` in the state directory if absent.
        seconds: how long the processes may take to become ready.
        backoff: how a fallen process is started again.
        samples: whether the sample knowledge base is loaded.
        offline: whether no model is simulated where none is given: agents answer by rules and retrieval.

    Raises:
        EmbeddedError: the directory or port is in use, or a server did not start.
        SupervisorError: a process did not become ready.
        LedgerUnavailable: the database did not answer.
    """
    state = state.resolve()
    environ = os.environ if environ is None else environ
    log = log or state / LOG
    given = Given.of(environ)
    with ExitStack() as stack:
        stack.enter_context(sole_use(state))
        lines = stack.enter_context(opened_log(log))
        port = _checked(port) if port else free_port()
        secrets = kept_secrets(state, environ)
        servers = stack.enter_context(
            EmbeddedServers(state, kafka=given.kafka, redis=given.redis, database=given.database)
        )
        if given.kafka:
            _in_thread(_make_topics, given.kafka)
        keys = _in_thread(_prepare, servers.endpoints.database, state, secrets, port)
        samples_loaded = stack.enter_context(loading_samples(servers.endpoints.database, wanted=samples))
        processes, simulated = _processes(environ, given, servers, secrets, port, offline=offline)
        endpoints = _endpoints(port, servers, keys, simulated)

        def note(children: Mapping[str, int]) -> None:
            endpoints.with_processes({**servers.processes, **children}).write(state)

        supervisor = Supervisor(
            [process.spec for process in processes],
            out=show or lines,
            colour=colour,
            log=lines if show else None,
            backoff=backoff,
            on_change=note,
        )
        stack.callback(_say_stopped, endpoints, state)
        stack.callback(supervisor.stop)
        supervisor.start()
        supervisor.wait_ready({process.spec.name: process.ready for process in processes}, seconds=seconds)
        samples_loaded()
        note(supervisor.processes)
        yield RunningSystem(
            state=state,
            log=log,
            endpoints=endpoints.with_processes({**servers.processes, **supervisor.processes}),
            supervisor=supervisor,
            servers=servers,
        )


async def _make_topics(kafka: str) -> None:
    """Make the topics that a given Kafka lacks; the embedded broker comes with them."""
    await create_topics(kafka, partitions=PARTITIONS[TOPIC_TURNS])


async def _prepare(database: str, state: Path, secrets: LocalSecrets, port: int) -> LocalKeys:
    """Migrate, and make sure that somebody can come in."""
    try:
        await upgrade_async(database)
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseError(error) from error
    origins = (f"http://127.0.0.1:{port}", f"http://localhost:{port}")
    return await local_keys(database, pepper=secrets.key_pepper, origins=origins, earlier=_earlier(state))


def _processes(
    environ: Mapping[str, str],
    given: Given,
    servers: EmbeddedServers,
    secrets: LocalSecrets,
    port: int,
    *,
    offline: bool,
) -> tuple[list[Process], SimulatorEndpoints | None]:
    found = servers.endpoints
    shared = {
        "FAIRLEAD_LOG_FORMAT": "pretty",
        **environ,
        **secrets.environment,
        "FAIRLEAD_KAFKA": found.kafka,
        "FAIRLEAD_REDIS": found.redis,
        "FAIRLEAD_DATABASE": found.database,
    }
    if given.kafka is None:
        # The in-memory broker does not wake a waiting fetch.
        shared.setdefault("FAIRLEAD_KAFKA_FETCH_MAX_WAIT_MS", _BROKER_FETCH_MS)
    if given.models or offline:
        return product(shared, port=port), None
    simulating, simulated = simulators(shared)
    shared["FAIRLEAD_DISCOVERY_BASE_URL"] = simulated.tgi
    shared[_DIALECT] = "tgi"
    shared["FAIRLEAD_FRONTIER_BASE_URL"] = simulated.openai
    return [*simulating, *product(shared, port=port)], simulated


def _endpoints(
    port: int, servers: EmbeddedServers, keys: LocalKeys, simulated: SimulatorEndpoints | None
) -> EndpointsFile:
    gateway, found = f"http://127.0.0.1:{port}", servers.endpoints
    return EndpointsFile(
        gateway=gateway,
        console=f"{gateway}/console",
        api_key=keys.api_key,
        operator_key=keys.operator_key,
        site_key=keys.site_key,
        kafka=found.kafka,
        redis=found.redis,
        database=found.database,
        simulators=simulated,
        processes={},
    )


def _earlier(state: Path) -> EndpointsFile | None:
    try:
        return EndpointsFile.read(state)
    except (OSError, ValueError):
        return None


def _say_stopped(endpoints: EndpointsFile, state: Path) -> None:
    """Keep the keys for the next start, and say that nothing runs."""
    with suppress(OSError):
        endpoints.write(state)


def _checked(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise PortTakenError(port=port) from None
    return port


def _in_thread(work: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> T:
    """Run a coroutine on a loop of its own, whatever the caller's thread is doing."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as pool:
        return pool.submit(lambda: asyncio.run(work(*arguments))).result()
