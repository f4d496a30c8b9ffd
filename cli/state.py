"""The state directory of a local system: one user at a time, secrets of its own, a log."""

import fcntl
import json
import os
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, TextIO

from pydantic import SecretStr

from cli.endpoints import EndpointsFile
from cli.failure import CommandFailed
from infra.embedded.errors import StateDamagedError, StateInUseError
from infra.settings import Settings

DEFAULT_STATE = Path(".fairlead")
"""Where a local system lives unless said otherwise: in the directory it was started from."""

_LOG_LIMIT = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class LocalSecrets:
    """What a local system signs and hashes with. Lost, every key and token made with it is worthless."""

    widget_secret: str
    key_pepper: str

    @property
    def environment(self) -> dict[str, str]:
        """The secrets as settings."""
        return {"FAIRLEAD_WIDGET_SECRET": self.widget_secret, "FAIRLEAD_KEY_PEPPER": self.key_pepper}

    @classmethod
    def read(cls, state: Path) -> Self:
        """Read what `kept_secrets` wrote.

        Raises:
            FileNotFoundError: nothing has been kept here yet.
            StateDamagedError: the file is not one of ours.
        """
        path = _secrets_file(state)
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise StateDamagedError(path=path, problem="does not hold the secrets of a local system") from error


def kept_secrets(state: Path, environ: Mapping[str, str]) -> LocalSecrets:
    """Return this directory's secrets, made the first time (file mode 0600); those given in `environ` win.

    Raises:
        StateDamagedError: the file is not one of ours.
    """
    try:
        kept = LocalSecrets.read(state)
    except FileNotFoundError:
        kept = LocalSecrets(widget_secret=secrets.token_urlsafe(48), key_pepper=secrets.token_urlsafe(32))
        _write_private(_secrets_file(state), json.dumps(asdict(kept)) + "\n")
    return LocalSecrets(
        widget_secret=environ.get("FAIRLEAD_WIDGET_SECRET") or kept.widget_secret,
        key_pepper=environ.get("FAIRLEAD_KEY_PEPPER") or kept.key_pepper,
    )


def local_endpoints(state: Path) -> EndpointsFile:
    """Return where the system of this directory is.

    Raises:
        CommandFailed: none was ever started there.
    """
    try:
        return EndpointsFile.read(state)
    except FileNotFoundError:
        raise CommandFailed(f"Nothing was started in {state}: run `fairlead up`, or say where with --state.") from None
    except (OSError, ValueError) as error:
        raise CommandFailed(
            f"{state / 'endpoints.json'} cannot be read ({error}): start `fairlead up` again."
        ) from error


def local_settings(state: Path) -> Settings:
    """Return the settings that the processes of this directory's system run with, as far as others need them.

    Raises:
        CommandFailed: none was ever started there.
    """
    found = local_endpoints(state)
    values = {"kafka": found.kafka, "redis": found.redis, "database": SecretStr(found.database)}
    if found.simulators is not None:
        values |= {"discovery_base_url": found.simulators.tgi, "frontier_base_url": found.simulators.openai}
    pepper = LocalSecrets.read(state).key_pepper
    return Settings(**values, key_pepper=SecretStr(pepper))  # pyright: ignore[reportArgumentType]  pydantic checks them


@contextmanager
def sole_use(state: Path) -> Generator[None]:
    """Hold the directory while the context lasts; also where nothing embedded runs.

    Raises:
        StateInUseError: another system runs on it.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state / "system.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StateInUseError(state=state, holder=file.read().strip()) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextmanager
def opened_log(path: Path) -> Generator[TextIO]:
    """Open the log to go on writing it; a long one is put aside first."""
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        yield log


def _secrets_file(state: Path) -> Path:
    return state / "secrets.json"


def _write_private(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".json.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    unfinished.replace(path)
