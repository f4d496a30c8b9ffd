"""One supervised child process that never outlives its supervisor."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from infra.embedded.errors import NotRunningError, StartFailedError
from infra.embedded.tied import launched, start_tied

_LOG_LIMIT = 4 * 2**20
_POLL = 0.01


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ChildProcess:
    """A child with a log file, a record of its pid, a graceful end and a certain one."""

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str],
        run: Path,
        env: Mapping[str, str],
        directory: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = 10.0,
        unprivileged: Path | None = None,
    ) -> None:
        self.name = name
        self.log = run / f"{name}.log"
        self._record = run / f"{name}.pid"
        self._command = launched(command, death_signal=stop_signal, unprivileged=unprivileged)
        self._env = dict(env)
        self._directory = directory
        self._stop_signal = stop_signal
        self._grace = grace
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The child's process id.

        Raises:
            NotRunningError: it was never started or has been stopped.
        """
        if self._child is None:
            raise NotRunningError(server=self.name)
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the child, after the end of one that an earlier supervisor may have left."""
        self._end_leftover()
        self._shorten_log()
        with self.log.open("ab") as log:
            self._child = start_tied(self._command, env=self._env, output=log.fileno(), directory=self._directory)
        self._remember(self._child.pid)

    def wait_ready(self, is_ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until ``is_ready`` says so.

        Raises:
            StartFailedError: the child ended first, or the time was up.
        """
        deadline = time.monotonic() + seconds
        while not is_ready():
            if not self.alive:
                raise self._failed("it ended at once")
            if time.monotonic() > deadline:
                raise self._failed(f"it was not ready within {seconds:.0f} s")
            time.sleep(_POLL)

    def stop(self) -> None:
        """Ask the child to end, wait for it, and end by force whatever is left. Safe to repeat."""
        self._end(self._stop_signal, patience=self._grace)

    def kill(self) -> None:
        """End the child and everything under it at once, as a crash would."""
        self._end(signal.SIGKILL, patience=self._grace)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child alone."""
        os.kill(self.pid, number)

    def _end(self, number: signal.Signals, *, patience: float) -> None:
        if self._child is None:
            return
        family = _descendants(self._child.pid)
        try:
            if self._child.poll() is None:
                self._child.send_signal(signal.SIGCONT)
                self._child.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._child.wait(patience)
                psutil.wait_procs(family, timeout=1.0)
        finally:
            self._child.kill()
            self._child.wait()
            end_all(family)
            self._record.unlink(missing_ok=True)
            self._child = None

    def _remember(self, pid: int) -> None:
        with suppress(psutil.NoSuchProcess):
            born = psutil.Process(pid).create_time()
            self._record.write_text(json.dumps({"pid": pid, "born": born}))

    def _end_leftover(self) -> None:
        """A supervisor that was killed cannot wait: its child may still be on its way out."""
        leftover = _process_in(self._record)
        if leftover is None:
            return
        family = _descendants(leftover.pid)
        psutil.wait_procs([leftover], timeout=self._grace / 2)
        end_all([leftover, *family])

    def _shorten_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _failed(self, problem: str) -> StartFailedError:
        return StartFailedError(server=self.name, problem=problem, log=self.log, tail=last_lines(self.log))


def last_lines(log: Path, *, count: int = 12) -> str:
    """The end of a log file, or nothing if there is none."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def end_all(processes: Sequence[psutil.Process]) -> None:
    """Kill what still runs of ``processes`` and wait until it is gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5.0)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _process_in(record: Path) -> psutil.Process | None:
    """The process a record speaks of, if that very one still runs: numbers come again, birth times do not."""
    try:
        noted = json.loads(record.read_text())
        process = psutil.Process(noted["pid"])
        same = abs(process.create_time() - noted["born"]) < 1.0
    except (OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        return None
    return process if same else None
