"""The servers of a fault run: real ones, behind links that fail, on disks that fill up."""

import os
import shutil
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from infra.embedded.apache_kafka import ApacheKafka
from infra.embedded.postgres import PostgresServer
from infra.embedded.redis import RedisServer
from infra.embedded.server import EmbeddedServer
from tests.chaos.links import Link, Links

Broker = Literal["memory", "apache"]

REDIS: Final = "redis"
POSTGRES: Final = "postgres"
KAFKA: Final = "kafka"

_MEGABYTES: Final = {REDIS: 256, POSTGRES: 768}


class Servers:
    """Redis, PostgreSQL and, if asked for, Apache Kafka; the in-memory broker belongs to the system itself.

    Args:
        state: directory of everything they write.
        broker: `apache` starts Apache Kafka here.
        disks: whether Redis and PostgreSQL get disks of their own that can be filled; needs the right to mount.
    """

    def __init__(self, state: Path, *, broker: Broker, disks: bool) -> None:
        self._state = state
        self._broker = broker
        self._links = Links()
        self._stack = ExitStack()
        self.servers: dict[str, EmbeddedServer] = {
            REDIS: RedisServer(state=state),
            POSTGRES: PostgresServer(state=state),
        }
        self.links: dict[str, Link] = {name: self._link(name) for name in self.servers}
        if broker == "apache":
            self.links[KAFKA] = self._link(KAFKA)
            self.servers[KAFKA] = ApacheKafka(state=state, advertised=self.links[KAFKA].port)
        self.disks = tuple(_MEGABYTES) if disks else ()
        """Servers whose disk can be filled."""

    def _link(self, name: str) -> Link:
        return self._links.to(lambda: ("127.0.0.1", self.servers[name].port))

    def __enter__(self) -> Self:
        self._stack.callback(self._links.close)
        try:
            for name in self.disks:
                self._stack.enter_context(_Disk(self._state / name, _MEGABYTES[name]))
            for server in self.servers.values():
                self._stack.callback(server.stop)
                server.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """The addresses, of the links, as a system is given them."""
        given = {
            "FAIRLEAD_REDIS": self._through(REDIS),
            "FAIRLEAD_DATABASE": self._through(POSTGRES),
        }
        return given | ({"FAIRLEAD_KAFKA": self._through(KAFKA)} if KAFKA in self.servers else {})

    def _through(self, name: str) -> str:
        return self.servers[name].address.replace(f":{self.servers[name].port}", f":{self.links[name].port}")

    @property
    def database(self) -> str:
        """The database's own address, past its link."""
        return self.servers[POSTGRES].address

    @property
    def redis(self) -> str:
        """Redis's own address, past its link."""
        return self.servers[REDIS].address

    def kill(self, name: str) -> None:
        """Crash a server."""
        self.servers[name].kill()

    def restart(self, name: str) -> None:
        """Start a server again where it was."""
        self.servers[name].restart()

    def fill(self, name: str) -> None:
        """Leave a server no byte of its disk."""
        with (self._state / name / "filling").open("wb", buffering=0) as file:
            for size in (2**20, 2**12):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self, name: str) -> None:
        """Give the disk back, and start the server again if it could not live without."""
        (self._state / name / "filling").unlink(missing_ok=True)
        if not self.servers[name].alive:
            self.servers[name].restart()


class _Disk:
    """A file system of fixed size in memory, at a directory, while the context lasts."""

    def __init__(self, place: Path, megabytes: int) -> None:
        self._place, self._megabytes = place, megabytes

    def __enter__(self) -> None:
        self._place.mkdir(parents=True, mode=0o700)
        options = f"size={self._megabytes}m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._place)], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._place)], check=True)


_OWN_MOUNTS: Final = "CHAOS_OWN_MOUNTS"
"""Set for the process that was started in a mount namespace of its own."""


def why_no_disks() -> str | None:
    """Why no disk can be filled here; None where it can, which is in a mount namespace of our own.

    Outside one, disks would outlive a run that is killed.
    """
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "full disks are left out: only root may mount"
    if _OWN_MOUNTS in os.environ:
        return None
    return "full disks are left out: not in a mount namespace of our own"


def in_own_mounts(command: list[str]) -> None:
    """Become `command` in a mount namespace of our own, where that is possible; else return."""
    unshare = shutil.which("unshare")
    if os.geteuid() == 0 and unshare is not None:
        probe = subprocess.run([unshare, "--mount", "true"], capture_output=True, check=False)
        if probe.returncode == 0:
            os.execve(unshare, [unshare, "--mount", *command], {**os.environ, _OWN_MOUNTS: "1"})
