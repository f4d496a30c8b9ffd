"""All embedded servers together: what `fairlead up` and the tests start when no address is given."""

import fcntl
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from infra.embedded.errors import NotRunningError, StateInUseError
from infra.embedded.memory_kafka import MemoryKafka
from infra.embedded.postgres import PostgresServer
from infra.embedded.redis import RedisServer
from infra.embedded.server import EmbeddedServer

Broker = Literal["memory", "apache"]


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where the three dependencies are."""

    kafka: str
    """``HOST:PORT``."""
    redis: str
    """``redis://HOST:PORT/DB``."""
    database: str
    """``postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE``; keep it out of logs."""


class EmbeddedServers:
    """Starts what has no given address, and ends it again; a synchronous context manager.

    One supervisor a state directory; whatever it starts dies with it, even if it is killed.
    """

    def __init__(
        self,
        state: Path,
        *,
        kafka: str | None = None,
        redis: str | None = None,
        database: str | None = None,
        broker: Broker = "memory",
    ) -> None:
        self._state = state.resolve()
        self._given = {"kafka": kafka, "redis": redis, "postgres": database}
        self._lock: IO[str] | None = None
        possible = (
            _kafka(broker, self._state),
            RedisServer(state=self._state),
            PostgresServer(state=self._state),
        )
        self._servers = {server.name: server for server in possible if not self._given[server.name]}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoints(self) -> Endpoints:
        """The addresses now: those given, and those of what runs here."""
        return Endpoints(kafka=self._address("kafka"), redis=self._address("redis"), database=self._address("postgres"))

    @property
    def processes(self) -> dict[str, int]:
        """Name and process id of each server running here."""
        return {name: server.pid for name, server in self._servers.items() if server.alive}

    def start(self) -> None:
        """Start everything side by side and return once all of it answers.

        Raises:
            StateInUseError: another supervisor has this state directory.
            EmbeddedError: one of the servers did not start; the others have been stopped.
        """
        if not self._servers:
            return
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _locked(self._state / "lock")
        try:
            _side_by_side(server.start for server in self._servers.values())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything started here. Safe to repeat."""
        try:
            _side_by_side(server.stop for server in self._servers.values())
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def kill(self, name: str) -> None:
        """Crash one server, as SIGKILL does."""
        self._server(name).kill()

    def restart(self, name: str) -> None:
        """Stop one server if it runs and start it again where it was.

        The in-memory broker cannot choose its port: read ``endpoints`` again after restarting it.
        """
        self._server(name).restart()

    def pause(self, name: str) -> None:
        """Freeze one server: it keeps its connections and answers nothing."""
        self._server(name).pause()

    def resume(self, name: str) -> None:
        """Let a frozen server go on."""
        self._server(name).resume()

    def _address(self, name: str) -> str:
        return self._given[name] or self._server(name).address

    def _server(self, name: str) -> EmbeddedServer:
        if name not in self._servers:
            raise NotRunningError(server=name)
        return self._servers[name]


def _kafka(broker: Broker, state: Path) -> EmbeddedServer:
    if broker == "memory":
        return MemoryKafka(state=state)
    from infra.embedded.apache_kafka import ApacheKafka  # a client library that only this broker needs

    return ApacheKafka(state=state)


def _side_by_side(calls: Iterable[Callable[[], None]]) -> None:
    """Make the calls at once, wait for all, and raise what the first failed one raised."""
    with ThreadPoolExecutor(thread_name_prefix="embedded") as pool:
        outcomes = [pool.submit(call) for call in calls]
        # Inside the block: after Ctrl-C here its end still waits, so that nothing starts behind our back.
        wait(outcomes)
    for outcome in outcomes:
        outcome.result()


def _locked(path: Path) -> IO[str]:
    """The open lock file; the lock goes with it, or with this process.

    Raises:
        StateInUseError: somebody else holds it.
    """
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise StateInUseError(state=path.parent, holder=holder) from None
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
