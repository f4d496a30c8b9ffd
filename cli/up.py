"""`fairlead up`: the whole system on this machine, until Ctrl-C."""

import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cli.chat import styles_wanted
from cli.screen import program
from cli.state import DEFAULT_STATE
from cli.supervisor import SupervisorError
from cli.system import LOG, Given, RunningSystem, running_system
from infra.embedded.process import last_lines

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOWN_LINES = 30
_LOOK_SECONDS = 1.0


def up(state: Path, *, port: int, quiet: bool, samples: bool, offline: bool) -> int:
    """Run until Ctrl-C or SIGTERM; return the exit status: 1 if something ended that should not have.

    Raises:
        EmbeddedError: the directory or port is in use, or a server did not start.
        SupervisorError: a process did not become ready.
    """
    words = sys.stdout
    try:
        with ends_like_ctrl_c():
            words.write(f"Starting in {state}; the log is {state / LOG}.\n")
            words.flush()
            show = None if quiet else sys.stdout
            with running_system(
                state, port=port, show=show, colour=styles_wanted(), samples=samples, offline=offline
            ) as system:
                words.write(greeting(system, state))
                words.flush()
                trouble = _watch(system)
                words.write(f"{trouble} Stopping.\n")
                return 1
    except KeyboardInterrupt:
        words.write("Stopped.\n")
        return 0
    except SupervisorError:
        if quiet:
            sys.stderr.write(last_lines(state / LOG, count=_SHOWN_LINES) + "\n")
        raise


@contextmanager
def ends_like_ctrl_c() -> Generator[None]:
    """Let SIGTERM and the terminal's end do what Ctrl-C does while the context lasts, and that also in background."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def greeting(system: RunningSystem, state: Path) -> str:
    """Return what a person who has just started a system wants to know."""
    found, given = system.endpoints, Given.of(os.environ)
    option = "" if state == DEFAULT_STATE else f" --state {state}"
    lines = [
        "",
        "Fairlead is up.",
        "",
        f"  gateway   {found.gateway}",
        f"  API       {found.gateway}/openapi.json",
        f"  chat      {program()} chat{option}",
        f"  keys      {state / 'endpoints.json'} (API key, operator key, addresses)",
        "",
        "  Any OpenAI client can talk to it, and so can curl:",
        "",
        f"    curl -N {found.gateway}/v1/chat/completions \\",
        f"      -H 'Authorization: Bearer {found.api_key}' \\",
        "      -H 'Content-Type: application/json' \\",
        """      -d '{"model": "fairlead", "stream": true, "messages": [{"role": "user", "content": "Hi!"}]}'""",
        "",
    ]
    if found.simulators is not None:
        lines.append("  The models are simulated; OPENAI_API_KEY or FAIRLEAD_DISCOVERY_BASE_URL make them real.")
    if given.kafka is None:
        lines.append("  The embedded broker is for trying out: it keeps events in memory and forgets them at the end.")
    return "\n".join([*lines, "  Ctrl-C stops everything.", "", ""])


def _watch(system: RunningSystem) -> str:
    """Wait until the system cannot go on; return why."""
    while (trouble := system.trouble(seconds=_LOOK_SECONDS)) is None:
        pass
    return trouble
