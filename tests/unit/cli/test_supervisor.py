"""The supervisor, with small real children."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cli.supervisor import Backoff, ChildSpec, GaveUpError, NotReadyError, StopAskedError, Supervisor, url_ready

_QUICK = Backoff(first=0.01, longest=0.05, limit=2, window=60)
_STAY = "import signal; print('up'); signal.pause()"
_STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up')\nwhile True: signal.pause()"


def child(name: str, code: str, *, stop_order: int = 0, grace: float = 10.0, **env: str) -> ChildSpec:
    return ChildSpec(
        name=name,
        argv=[sys.executable, "-c", code],
        env={"PATH": os.defpath, **env},
        stop_order=stop_order,
        grace=grace,
    )


def says(out: io.StringIO, words: str, *, times: int = 1) -> Callable[[], bool]:
    return lambda: out.getvalue().count(words) >= times


def test_lines_carry_a_fixed_width_name() -> None:
    """Both streams of every child come out line by line under its name, in colour only where asked."""
    code = "import sys, signal; print('out', flush=True); print('err', file=sys.stderr); signal.pause()"
    plain, coloured = io.StringIO(), io.StringIO()
    for out, colour in ((plain, False), (coloured, True)):
        with Supervisor([child("a", code), child("longer", code)], out=out, colour=colour) as supervisor:
            supervisor.wait_ready({"lines": says(out, "err", times=2)}, seconds=20)
    lines = plain.getvalue().splitlines()
    assert {"a        | out", "a        | err", "longer   | out", "longer   | err"} <= set(lines)
    assert "\x1b[" not in plain.getvalue()
    assert "\x1b[32ma       \x1b[0m | out\n" in coloured.getvalue()


def test_child_sees_only_its_environment() -> None:
    """The environment is the one given, not the supervisor's."""
    out = io.StringIO()
    code = "import os; print(os.environ['GIVEN'], os.environ.get('HOME')); import signal; signal.pause()"
    with Supervisor([child("a", code, GIVEN="yes")], out=out) as supervisor:
        supervisor.wait_ready({"line": says(out, "yes None")}, seconds=20)


def test_fallen_child_is_started_again() -> None:
    """A child that was killed comes back with another pid, which is told."""
    out, changes = io.StringIO(), list[dict[str, int]]()
    with Supervisor(
        [child("a", _STAY)], out=out, backoff=_QUICK, on_change=lambda pids: changes.append(dict(pids))
    ) as supervisor:
        supervisor.wait_ready({"first": says(out, "up")}, seconds=20)
        first = supervisor.processes["a"]
        os.kill(first, signal.SIGKILL)
        supervisor.wait_ready({"second": says(out, "up", times=2)}, seconds=20)
        assert supervisor.processes["a"] != first
        supervisor.wait_ready({"told": lambda: supervisor.processes in changes}, seconds=20)
    assert "was ended by SIGKILL; starting it again" in out.getvalue()


def test_held_child_stays_down_until_released() -> None:
    """A child that is held ends and is not started again before it is released; the others go on."""
    out, log = io.StringIO(), io.StringIO()
    with Supervisor(
        [child("a", _STAY), child("b", _STAY)], out=out, colour=True, log=log, backoff=_QUICK
    ) as supervisor:
        supervisor.wait_ready({"up": says(out, "up", times=2)}, seconds=20)
        supervisor.hold("a")
        assert list(supervisor.processes) == ["b"]
        supervisor.wait_ready({"told": says(out, "stays so until it is asked for")}, seconds=20)
        supervisor.release("a")
        supervisor.wait_ready({"again": says(out, "up", times=3)}, seconds=20)
        assert list(supervisor.processes) == ["a", "b"]
        with pytest.raises(KeyError):
            supervisor.hold("nobody")
    assert "\x1b[" not in log.getvalue()
    assert len(log.getvalue().splitlines()) == len(out.getvalue().splitlines())


def test_what_is_lent_is_given_to_the_next_starts_only() -> None:
    """Each lent environment is one start's; how a child fell is remembered."""
    out = io.StringIO()
    code = f"import os; crash = os.environ.get('CRASH'); print('has', crash)\nif crash: os._exit(int(crash))\n{_STAY}"
    quick = Backoff(first=0.01, longest=0.05, limit=9, window=60)
    with Supervisor([child("a", code, PYTHONUNBUFFERED="1")], out=out, backoff=quick) as supervisor:
        supervisor.wait_ready({"up": says(out, "up")}, seconds=20)
        supervisor.lend("a", {"CRASH": "5"}, {"CRASH": "6"})
        os.kill(supervisor.processes["a"], signal.SIGKILL)
        supervisor.wait_ready({"up again": says(out, "up", times=2)}, seconds=20)
        assert [(fall.name, fall.status) for fall in supervisor.fallen] == [("a", -9), ("a", 5), ("a", 6)]
    assert out.getvalue().count("has None") == 2


def test_gives_up_on_a_child_that_keeps_falling() -> None:
    """After its restarts are used up everything stops, with a failure status and the reason."""
    out = io.StringIO()
    with Supervisor([child("bad", "raise SystemExit(3)"), child("good", _STAY)], out=out, backoff=_QUICK) as supervisor:
        assert supervisor.run() == 1
        assert supervisor.processes == {}
        with pytest.raises(GaveUpError, match="bad ended with status 3"):
            supervisor.wait_ready({"never": lambda: False}, seconds=20)
    assert out.getvalue().count("starting it again") == _QUICK.limit


def test_backoff_doubles_up_to_its_longest() -> None:
    """Each further fall waits twice as long, but never longer than said."""
    backoff = Backoff(first=1, longest=5)
    assert [backoff.delay(falls) for falls in (1, 2, 3, 4, 40)] == [1, 2, 4, 5, 5]


def test_stops_in_order(tmp_path: Path) -> None:
    """Children with a lower number have ended before those with a higher one are asked to."""
    journal = tmp_path / "journal"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.1); open({path!r}, 'a').write({name!r} + ' '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('up')\n"
        "while True: signal.pause()"
    )
    specs = [
        child(name, code.format(path=str(journal), name=name), stop_order=order)
        for name, order in (("last", 3), ("first", 1), ("second", 2))
    ]
    out = io.StringIO()
    with Supervisor(specs, out=out) as supervisor:
        supervisor.wait_ready({"all": says(out, "up", times=3)}, seconds=20)
    assert journal.read_text().split() == ["first", "second", "last"]


def test_stubborn_child_and_its_children_are_ended() -> None:
    """A child that ignores the request is killed after its grace, with whatever it started."""
    code = f"import subprocess as s, sys; s.Popen([sys.executable, '-c', 'input()'], stdin=s.PIPE)\n{_STUBBORN}"
    out = io.StringIO()
    with Supervisor([child("a", code, grace=0.05)], out=out) as supervisor:
        supervisor.wait_ready({"up": says(out, "up")}, seconds=20)
        family = psutil.Process(supervisor.processes["a"]).children()
        assert len(family) == 1
    assert "did not end by itself" in out.getvalue()
    assert psutil.wait_procs(family, timeout=20)[1] == []


def test_signals_stop_and_a_second_hurries() -> None:
    """A first SIGTERM asks, a second no longer waits for the grace."""
    out = io.StringIO()
    with Supervisor([child("a", _STUBBORN, grace=600)], out=out) as supervisor:
        supervisor.wait_ready({"up": says(out, "up")}, seconds=20)

        def insist() -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            while not supervisor_asked(supervisor):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=insist).start()
        assert supervisor.run() == 0
    assert "is ended by force" in out.getvalue()


def supervisor_asked(supervisor: Supervisor) -> bool:
    """Whether waiting for readiness would be refused by now."""
    try:
        supervisor.wait_ready({"never": lambda: False}, seconds=0)
    except StopAskedError:
        return True
    except NotReadyError:
        return False
    return False


def test_not_ready_names_what_is_missing() -> None:
    """A wait that ends in vain names the conditions that never held."""
    with (
        Supervisor([], out=io.StringIO()) as supervisor,
        pytest.raises(NotReadyError, match=r"0 s: gateway\. "),
    ):
        supervisor.wait_ready({"gateway": url_ready("http://127.0.0.1:9/"), "fine": lambda: True}, seconds=0)


def test_url_ready(tmp_path: Path) -> None:
    """An address is ready once it answers with success, not while it answers with an error."""
    code = (
        f"from http.server import *; import os; os.chdir({str(tmp_path)!r})\n"
        "server = HTTPServer(('127.0.0.1', 0), SimpleHTTPRequestHandler)\n"
        "print('port', server.server_port); server.serve_forever()"
    )
    out = io.StringIO()
    with Supervisor([child("web", code)], out=out) as supervisor:
        supervisor.wait_ready({"port": says(out, "port ")}, seconds=20)
        base = f"http://127.0.0.1:{out.getvalue().split('port ')[1].split()[0]}"
        supervisor.wait_ready({"web": url_ready(f"{base}/")}, seconds=20)
        assert not url_ready(f"{base}/missing")()


def test_killed_supervisor_leaves_no_child(tmp_path: Path) -> None:
    """If the supervisor is killed the kernel ends its children."""
    program = f"""
import os, sys
from cli.supervisor import ChildSpec, Supervisor
spec = ChildSpec(name="a", argv=[sys.executable, "-c", {_STUBBORN!r}], env=dict(os.environ))
with Supervisor([spec], out=sys.stderr) as supervisor:
    print(supervisor.processes["a"], flush=True)
    supervisor.run()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        orphan = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
    assert psutil.wait_procs([orphan], timeout=20)[1] == []
