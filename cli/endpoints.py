"""``endpoints.json``: where a running Fairlead is, so that scripts and tests find their way."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self


@dataclass(frozen=True, kw_only=True)
class SimulatorEndpoints:
    """Base addresses of the model simulators."""

    tgi: str
    openai: str


@dataclass(frozen=True, kw_only=True)
class EndpointsFile:
    """What the file says. It holds keys and a password: it is its owner's alone."""

    gateway: str
    console: str
    api_key: str
    operator_key: str
    kafka: str
    redis: str
    database: str
    simulators: SimulatorEndpoints | None
    """None when real models are configured."""
    processes: Mapping[str, int]
    """Name and process id; empty once the system has been stopped."""
    site_key: str = ""
    """Public key of the gateway's own pages."""

    def with_processes(self, processes: Mapping[str, int]) -> Self:
        """The same with other process ids."""
        return replace(self, processes=dict(processes))

    def write(self, directory: Path) -> Path:
        """Write ``endpoints.json`` (mode 0600) whole or not at all, and return its path."""
        path = directory / "endpoints.json"
        unfinished = path.with_suffix(".json.new")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file, indent=2)
            file.write("\n")
        unfinished.replace(path)
        return path

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read it back.

        Raises:
            OSError: nothing runs there, or it is not ours to read.
            ValueError: it is not such a file.
        """
        found = json.loads((directory / "endpoints.json").read_text())
        try:
            simulators = found.pop("simulators")
            return cls(**found, simulators=SimulatorEndpoints(**simulators) if simulators else None)
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"{directory / 'endpoints.json'} is not a file of this version") from error
