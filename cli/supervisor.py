"""Runs the product's processes as children: names their lines, starts the fallen again, ends all in order.

Pure mechanism: what to run is a list of ``ChildSpec``; nothing here knows the product. A child never outlives the
supervisor: it is asked to end, then ended, and if the supervisor itself is killed the kernel ends it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from types import FrameType, TracebackType
from typing import IO, Self, TextIO

from infra.embedded.tied import launched, start_tied

Condition = Callable[[], bool]
"""Whether something is ready; called again and again."""

_OWN_NAME = "fairlead"
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_POLL = 0.05
_LONGEST_LINE = 65_536
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SupervisorError(Exception):
    """Base of what the supervisor raises."""


class NotReadyError(SupervisorError):
    """Not everything became ready in time."""

    def __init__(self, *, missing: Sequence[str], seconds: float) -> None:
        super().__init__(
            f"Not ready within {seconds:.0f} s: {', '.join(missing)}. The lines above say what they are waiting for."
        )


class StopAskedError(SupervisorError):
    """Somebody asked for the end while something was still being waited for."""

    def __init__(self) -> None:
        super().__init__("Stopped before everything was ready.")


class GaveUpError(SupervisorError):
    """A child fell too often to be started again."""

    def __init__(self, *, name: str, status: str, restarts: int, seconds: float) -> None:
        super().__init__(
            f"{name} {status} and had been started again {restarts} times within {seconds:.0f} s already: "
            f"read its lines above, mend the cause and start again."
        )


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """One process to run."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    """Its whole environment."""
    stop_order: int = 0
    """Lower numbers are stopped first; those with the same number together."""
    grace: float = 15.0
    """Seconds it may take to end after SIGTERM."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How a fallen child is started again."""

    first: float = 0.25
    """Seconds before the first restart; each further one within the window waits twice as long."""
    longest: float = 8.0
    limit: int = 6
    """Restarts within the window after which the supervisor gives up."""
    window: float = 120.0
    """Seconds a fall is remembered."""

    def delay(self, falls: int) -> float:
        """Seconds to wait after so many falls (one or more) within the window."""
        return min(self.longest, self.first * 2.0 ** (falls - 1))


@dataclass(frozen=True)
class Fall:
    """A child that ended unasked."""

    name: str
    status: int
    """As `Popen` counts: negative for a signal."""


@dataclass
class _Child:
    spec: ChildSpec
    process: subprocess.Popen[bytes] | None = None
    reader: threading.Thread | None = None
    falls: list[float] = field(default_factory=list[float])
    due: float | None = None
    """When it is to be started again, on the monotonic clock."""
    held: bool = False
    """Whether it is to stay down."""
    lent: list[Mapping[str, str]] = field(default_factory=list[Mapping[str, str]])


class Supervisor:
    """Keeps children running until it is asked to end; a context manager of the main thread.

        with Supervisor(specs) as supervisor:
            supervisor.wait_ready({"gateway": url_ready("http://127.0.0.1:8080/readyz")}, seconds=60)
            return supervisor.run()

    Inside the block SIGINT and SIGTERM ask for the end; a second one no longer waits.
    """

    def __init__(
        self,
        specs: Iterable[ChildSpec],
        *,
        out: TextIO | None = None,
        colour: bool = False,
        log: TextIO | None = None,
        backoff: Backoff | None = None,
        on_change: Callable[[Mapping[str, int]], None] | None = None,
    ) -> None:
        """Prepare; `out` (standard output if absent) and `log` get every line, only `out` in colour."""
        self._children = [_Child(spec) for spec in specs]
        names = [_OWN_NAME, *(child.spec.name for child in self._children)]
        self._lines = _Lines(out or sys.stdout, names, colour=colour, log=log)
        self._backoff = backoff or Backoff()
        self._on_change = on_change
        self._asked = threading.Event()
        self._signals = 0
        self._failure: GaveUpError | None = None
        self.fallen: list[Fall] = []
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._handlers: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._handlers[number] = signal.signal(number, self._take_signal)
        try:
            self.start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def processes(self) -> dict[str, int]:
        """Name and process id of each running child."""
        running = {child.spec.name: child.process for child in self._children if not _ended(child)}
        return {name: process.pid for name, process in running.items() if process is not None}

    def start(self) -> None:
        """Start every child, in the order given, and look after them from now on.

        Raises:
            OSError: one could not be started at all.
        """
        for child in self._children:
            self._start(child)
        self._watcher.start()

    def hold(self, name: str) -> None:
        """End one child as `stop` would and keep it down until `release`. Returns once it is gone.

        Raises:
            KeyError: there is no such child.
        """
        self._child(name).held = True
        while name in self.processes and not self._asked.wait(_POLL):
            pass

    def release(self, name: str) -> None:
        """Let a child that is held run again.

        Raises:
            KeyError: there is no such child.
        """
        child = self._child(name)
        child.due = time.monotonic()
        child.held = False

    def lend(self, name: str, *more: Mapping[str, str]) -> None:
        """Give each of the next starts of one child one of these on top of its environment, and later ones nothing.

        Raises:
            KeyError: there is no such child.
        """
        self._child(name).lent = list(more)

    def _child(self, name: str) -> _Child:
        return {child.spec.name: child for child in self._children}[name]

    def wait(self, *, seconds: float | None = None) -> bool:
        """Whether the end was asked for, or a child given up on, within so many seconds."""
        return self._asked.wait(seconds)

    @property
    def failure(self) -> SupervisorError | None:
        """Why it ended by itself, if it did."""
        return self._failure

    def ask_to_stop(self) -> None:
        """Let ``run`` return; what a first signal does."""
        self._asked.set()

    def wait_ready(self, conditions: Mapping[str, Condition], *, seconds: float) -> None:
        """Wait until every condition holds; each is asked until it first does.

        Raises:
            NotReadyError: the time is up; it names what is missing.
            StopAskedError: a signal came first.
            GaveUpError: a child keeps falling.
        """
        deadline = time.monotonic() + seconds
        missing = list(conditions)
        while missing := [name for name in missing if not conditions[name]()]:
            if self._asked.wait(_POLL):
                raise self._failure or StopAskedError()
            if time.monotonic() > deadline:
                raise NotReadyError(missing=missing, seconds=seconds)

    def run(self) -> int:
        """Wait until asked to stop, stop everything, and return an exit status: 0, or 1 after giving up on a child."""
        self._asked.wait()
        self.stop()
        return 1 if self._failure else 0

    def say(self, words: str) -> None:
        """Write a line in the supervisor's own name."""
        self._lines.write(_OWN_NAME, words)

    def stop(self) -> None:
        """End all children in their order: ask, wait, then force. Safe to repeat."""
        self._asked.set()
        if self._watcher.ident is not None:
            self._watcher.join()
        running = sorted((child for child in self._children if child.process), key=_stop_order)
        try:
            for _, together in groupby(running, key=_stop_order):
                self._stop(list(together))
        finally:
            for child in running:
                _force(child)

    def _stop(self, children: Sequence[_Child]) -> None:
        started = time.monotonic()
        for child in children:
            _send(child, signal.SIGTERM)
        for child in children:
            while self._signals < 2 and time.monotonic() < started + child.spec.grace and not _ended(child):
                time.sleep(_POLL / 2)
            if not _ended(child):
                self.say(f"{child.spec.name} did not end by itself and is ended by force")
            _force(child)

    def _watch(self) -> None:
        while not self._asked.wait(_POLL):
            self.look_after()
            if self._signals:
                self._asked.set()

    def look_after(self) -> None:
        """One look at every child: note who fell, start who is due."""
        before = self.processes
        for child in self._children:
            self._look_after(child)
        if self._on_change is not None and self.processes != before:
            self._tell_change(self._on_change)

    def _tell_change(self, tell: Callable[[Mapping[str, int]], None]) -> None:
        try:
            tell(self.processes)
        except OSError as error:
            self.say(f"the new process ids could not be noted: {error}")

    def _look_after(self, child: _Child) -> None:
        if child.held:
            self._keep_down(child)
        elif child.due is not None:
            if time.monotonic() >= child.due:
                child.due = None
                self._start_again(child)
        elif _ended(child):
            self._note_fall(child)

    def _keep_down(self, child: _Child) -> None:
        if child.process is not None:
            self.say(f"{child.spec.name} is stopped and stays so until it is asked for")
            self._stop([child])

    def _note_fall(self, child: _Child) -> None:
        now = time.monotonic()
        self.fallen.append(Fall(child.spec.name, _force(child)))
        status = _in_words(self.fallen[-1].status)
        child.falls = [*(fall for fall in child.falls if now - fall < self._backoff.window), now]
        restarts = len(child.falls)
        if restarts > self._backoff.limit:
            self._give_up(child, status)
            return
        delay = self._backoff.delay(restarts)
        child.due = now + delay
        self.say(f"{child.spec.name} {status}; starting it again in {delay:g} s ({restarts} of {self._backoff.limit})")

    def _give_up(self, child: _Child, status: str) -> None:
        self._failure = GaveUpError(
            name=child.spec.name, status=status, restarts=self._backoff.limit, seconds=self._backoff.window
        )
        self.say(str(self._failure))
        self._asked.set()

    def _start_again(self, child: _Child) -> None:
        try:
            self._start(child)
        except OSError as error:
            self.say(f"{child.spec.name} cannot be started: {error}")
            self._note_fall(child)

    def _start(self, child: _Child) -> None:
        # A child that buffers its lines would seem silent; it may say otherwise in its own environment.
        env = {"PYTHONUNBUFFERED": "1", **child.spec.env, **(child.lent.pop(0) if child.lent else {})}
        command = launched(child.spec.argv, death_signal=signal.SIGKILL)
        child.process = start_tied(command, env=env, output=subprocess.PIPE)
        child.reader = threading.Thread(
            target=self._read,
            args=(child.spec.name, child.process.stdout),
            name=f"lines-{child.spec.name}",
            daemon=True,
        )
        child.reader.start()

    def _read(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(_LONGEST_LINE):
                self._lines.write(name, line.decode(errors="replace").rstrip("\r\n"))

    def _take_signal(self, number: int, frame: FrameType | None) -> None:
        # Only counted: setting an event here could wait for a lock that the interrupted code holds.
        self._signals += 1

    def _leave(self) -> None:
        try:
            self.stop()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # pyright: ignore[reportArgumentType]  what signal.signal gave us


class _Lines:
    """Whole lines, one writer at a time, each under its coloured name."""

    def __init__(self, out: TextIO, names: Sequence[str], *, colour: bool, log: TextIO | None) -> None:
        self._out = out
        self._log = log
        self._lock = threading.Lock()
        width = max(len(name) for name in names)
        self._names = {name: name.ljust(width) for name in names}
        self._prefixes = {
            name: _coloured(padded, _COLOURS[place % len(_COLOURS)]) if colour else padded
            for place, (name, padded) in enumerate(self._names.items())
        }

    def write(self, name: str, line: str) -> None:
        with self._lock:
            self._put(self._out, f"{self._prefixes[name]} | {line}\n")
            if self._log is not None:
                self._put(self._log, f"{self._names[name]} | {line}\n")

    def _put(self, where: TextIO, line: str) -> None:
        with suppress(OSError, ValueError):  # nobody may be reading any more
            where.write(line)
            where.flush()


def url_ready(url: str) -> Condition:
    """Whether a GET of ``url`` is answered with success; never through a proxy, since it is near."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ready() -> bool:
        try:
            with direct.open(url, timeout=2.0) as answer:
                return 200 <= int(answer.status) < 300
        except (OSError, urllib.error.URLError):
            return False

    return ready


def _coloured(words: str, colour: int) -> str:
    return f"\x1b[{colour}m{words}\x1b[0m"


def _stop_order(child: _Child) -> int:
    return child.spec.stop_order


def _ended(child: _Child) -> bool:
    """Whether it has ended; it keeps its number until ``_force``, so that no stranger can have got it."""
    process = child.process
    if process is None:
        return True
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # another thread has just taken in its end
        return True


def _send(child: _Child, number: signal.Signals) -> None:
    if child.process is not None:
        with suppress(ProcessLookupError):
            os.kill(child.process.pid, number)


def _force(child: _Child) -> int:
    """End the child and all it started, take in its last lines, and return how it ended, as ``Popen`` counts."""
    if child.process is None:
        return 0
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    status = child.process.wait()
    if child.reader is not None:
        child.reader.join(timeout=2.0)
    child.process = None
    return status


def _in_words(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
