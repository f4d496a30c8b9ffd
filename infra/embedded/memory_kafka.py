"""The in-memory broker as a supervised server."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from infra.embedded.broker import find_library
from infra.embedded.server import EmbeddedServer
from infra.embedded.topics import PARTITIONS

_ROOT = Path(__file__).parents[2]


class MemoryKafka(EmbeddedServer):
    """Kafka's wire without Kafka. It chooses its own port, so a restart comes back empty *and* elsewhere."""

    name: ClassVar[str] = "kafka"

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        return self._address_file.read_text().strip()

    def prepare(self) -> None:
        """Look for the library here, where its absence can be told in a sentence."""
        find_library()

    def command(self) -> list[str]:
        """The broker, which tells its address in a file."""
        self._address_file.unlink(missing_ok=True)
        topics = [part for topic, count in PARTITIONS.items() for part in ("--topic", f"{topic}:{count}")]
        return [
            sys.executable,
            "-m",
            "infra.embedded.broker",
            "--port-file",
            str(self._address_file),
            *topics,
        ]

    @property
    def environment(self) -> Mapping[str, str]:
        """With everything importable that is importable here, whatever the working directory is."""
        path = os.pathsep.join([str(_ROOT), *filter(None, sys.path)])
        return {**super().environment, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def is_ready(self) -> bool:
        """Whether it has told its address: it does so when it serves."""
        return self._address_file.exists()

    @property
    def _address_file(self) -> Path:
        return self.home / "address"
