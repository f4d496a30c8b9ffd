"""Starting children that are tied to this process: when it is gone, however it went, they get a signal."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("launcher.py")

_Child = subprocess.Popen[bytes]
_Calls = queue.SimpleQueue[tuple[Callable[[], _Child], Future[_Child]]]


def launched(command: Sequence[str], *, death_signal: signal.Signals, unprivileged: Path | None = None) -> list[str]:
    """The command line that runs ``command`` through the launcher as this process's child."""
    drop = ["--unprivileged", str(unprivileged)] if unprivileged else []
    tie = ["--signal", str(int(death_signal)), "--parent", str(os.getpid())]
    return [sys.executable, "-I", "-S", str(_LAUNCHER), *tie, *drop, "--", *command]


def start_tied(
    command: Sequence[str], *, env: Mapping[str, str], output: int, directory: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a ``launched`` command line in a session of its own, so that Ctrl-C reaches only the supervisor.

    ``output`` is a file descriptor or ``subprocess.PIPE`` and takes both of the child's streams.

    Raises:
        OSError: it could not be started.
    """

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  our own command line
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=directory,
            start_new_session=True,
        )

    return _from_lasting_thread(start)


def _from_lasting_thread(call: Callable[[], _Child]) -> _Child:
    """Run ``call`` in the lasting thread.

    To the kernel a child's parent is the *thread* that forked it: a child of a passing worker thread would
    get its death signal when that thread ends.
    """
    answer: Future[_Child] = Future()
    _lasting_thread(os.getpid()).put((call, answer))
    return answer.result()


@cache
def _lasting_thread(owner: int) -> _Calls:
    """The queue of a thread that lives as long as process ``owner``."""
    calls: _Calls = queue.SimpleQueue()

    def serve() -> None:
        while True:
            call, answer = calls.get()
            try:
                answer.set_result(call())
            except OSError as error:
                answer.set_exception(error)

    threading.Thread(target=serve, name=f"child-starter-{owner}", daemon=True).start()
    return calls
