"""The door every child goes through: tied to its supervisor's life, without root where asked, it execs.

    python launcher.py [--signal N --parent PID] [--unprivileged DIR | --nobody DIR] -- COMMAND...

*Tied*: the kernel sends signal N to the command when the supervisor is gone, however it went.

*Unprivileged*: PostgreSQL refuses to run as root. Root becomes, in a user namespace of its own, a user
without rights that is still root to the file system; nothing is handed over and no account is made. Where the
kernel refuses such namespaces, the command runs as ``nobody`` and DIR is handed to that user; ``--nobody``
does so at once.

The file imports little and nothing of ours, so that it starts in milliseconds under ``-I -S``.
"""

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_NOBODY = 65534
_OPTIONS = {"--signal", "--parent", "--unprivileged", "--nobody"}
_USAGE = "usage: launcher.py [--signal N --parent PID] [--unprivileged DIR | --nobody DIR] -- COMMAND..."

REFUSED = 78
"""Exit status when the command could not be run as asked; the sentence is on stderr."""


class LaunchError(Exception):
    """The command cannot be run as asked; the message says what to do."""


def die_with_parent(*, signal: int, parent: int | None = None) -> None:
    """Have the kernel send ``signal`` to this process when its parent is gone.

    With ``parent`` given, a parent that was gone before the request counts too: this process exits.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        sys.exit(REFUSED)


def become_unprivileged(directory: Path) -> None:
    """Stop being root, keeping the use of ``directory``. Nothing happens to a process that is not root.

    Raises:
        LaunchError: ``nobody`` cannot reach the directory.
    """
    if os.geteuid() == 0 and not _enter_user_namespace(directory):
        become_nobody(directory)


def become_nobody(directory: Path) -> None:
    """Stop being root for the user ``nobody``, who is given ``directory``.

    Raises:
        LaunchError: ``nobody`` cannot reach the directory.
    """
    _check_reachable(directory)
    _hand_over(directory, _NOBODY)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _enter_user_namespace(directory: Path) -> bool:
    """Map root outside to ``nobody`` inside; whether the kernel allowed it."""
    if sys.platform != "linux" or not _may_enter_user_namespace():
        return False
    _hand_over(directory, 0)
    _map_root_to_nobody()
    return True


def _may_enter_user_namespace() -> bool:
    """Try it in a child: some kernels let a process in and then refuse the mapping, and there is no way back."""
    trial = os.fork()
    if trial == 0:
        try:
            _map_root_to_nobody()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(trial, 0)[1] == 0


def _map_root_to_nobody() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are refused")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{_NOBODY} 0 1")
    Path("/proc/self/gid_map").write_text(f"{_NOBODY} 0 1")


def _hand_over(directory: Path, user: int) -> None:
    """Give the tree to ``user`` unless it has it already."""
    if directory.stat().st_uid == user:
        return
    for folder, _, files in os.walk(directory):
        for path in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118  pathlib doubles the start-up time
            os.chown(path, user, user, follow_symlinks=False)


def _check_reachable(directory: Path) -> None:
    for parent in directory.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise LaunchError(
                "This process is root, the kernel refuses user namespaces, and the user 'nobody' cannot pass "
                f"through {parent}: run as an ordinary user, choose another state directory (--state), or "
                f"allow passage with `chmod o+x {parent}`."
            )


def main(arguments: Sequence[str]) -> NoReturn:
    """Do as the arguments say and become the command."""
    options, command = _split(list(arguments))
    try:
        if "--unprivileged" in options:
            become_unprivileged(Path(options["--unprivileged"]))
        if "--nobody" in options:
            become_nobody(Path(options["--nobody"]))
        # Last, because a change of credentials cancels it.
        if "--signal" in options:
            die_with_parent(signal=int(options["--signal"]), parent=int(options["--parent"]))
        os.execvp(command[0], command)  # noqa: S606  the command is our own and no shell is wanted
    except (LaunchError, OSError) as error:
        sys.stderr.write(f"{error}\n")
    sys.exit(REFUSED)


def _split(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options and command; argparse would cost more time than everything else here."""
    if "--" not in arguments:
        sys.exit(_USAGE)
    at = arguments.index("--")
    given, command = arguments[:at], arguments[at + 1 :]
    options = dict(zip(given[::2], given[1::2], strict=False))
    if not command or len(given) % 2 or not options.keys() <= _OPTIONS:
        sys.exit(_USAGE)
    if ("--signal" in options) != ("--parent" in options):
        sys.exit(_USAGE)
    return options, command


if __name__ == "__main__":
    main(sys.argv[1:])
