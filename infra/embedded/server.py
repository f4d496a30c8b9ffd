"""What the embedded servers share: a place in the state directory, a port, a start, an end."""

import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from infra.embedded.errors import NotRunningError, StartFailedError
from infra.embedded.process import ChildProcess, free_port

_TRIES = 3


class EmbeddedServer(ABC):
    """A server on a free port of 127.0.0.1 that writes only to ``state/<name>`` and ``state/run``."""

    name: ClassVar[str]
    patience: ClassVar[float] = 30.0
    """Seconds the server may take until it answers."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, *, state: Path) -> None:
        self.home = state / self.name
        self.run = state / "run"
        self.port = 0
        self._child: ChildProcess | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients find it, in the form of its field of ``Endpoints``."""

    @abstractmethod
    def prepare(self) -> None:
        """Make ready what the server needs on disk; repeatable."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line that serves on ``self.port``."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server answers."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The child's whole environment: nothing of the caller's leaks into it."""
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": str(self.home)}

    @property
    def unprivileged_in(self) -> Path | None:
        """The directory it uses as somebody other than root, if it refuses to be root."""
        return None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.alive

    def start(self) -> None:
        """Start on a free port and return once it answers.

        Raises:
            EmbeddedError: it could not be started; the message says why and what to do.
        """
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.prepare()
        for tries_left in reversed(range(_TRIES)):
            self.port = free_port()
            try:
                return self._start_once()
            except StartFailedError:
                # Somebody may have taken the port between the look and the use.
                if tries_left == 0:
                    raise
        return None

    def stop(self) -> None:
        """End it gracefully if it runs."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """Crash it."""
        self._running().kill()
        self._child = None

    def restart(self) -> None:
        """Stop it if it runs and start it again on the same port."""
        self.stop()
        self._start_once()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._running().send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        self._running().send(signal.SIGCONT)

    def _start_once(self) -> None:
        child = ChildProcess(
            name=self.name,
            command=self.command(),
            run=self.run,
            env=self.environment,
            directory=self.home,
            stop_signal=self.stop_signal,
            unprivileged=self.unprivileged_in,
        )
        self._child = child
        try:
            child.start()
            child.wait_ready(self.is_ready, seconds=self.patience)
        except BaseException:
            self.stop()
            raise

    def _running(self) -> ChildProcess:
        if self._child is None:
            raise NotRunningError(server=self.name)
        return self._child


def package_folder(package: str) -> Path | None:
    """Where an installed package's files are, without importing it: imports have effects and cost time."""
    for entry in sys.path:
        folder = Path(entry or ".") / package
        if folder.is_dir():
            return folder
    return None
