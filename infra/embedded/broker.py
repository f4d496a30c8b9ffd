"""An in-memory Kafka-wire broker: librdkafka's mock cluster, in a process of its own.

    python -m infra.embedded.broker --port-file FILE

It is for trying and testing. It keeps everything in memory and forgets it when it ends, drops the oldest
records past 5 MiB a partition, does not wake a waiting fetch (set ``fetch_max_wait_ms`` to 1-10), and knows
no ACLs, TLS or retention. A topic it does not know is made with four partitions when first used.
"""

import argparse
import ctypes
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.embedded.errors import EmbeddedError, WheelMissingError
from infra.embedded.launcher import die_with_parent
from infra.embedded.server import package_folder

_REBALANCE_DELAY_MS = 200
_PRODUCER = 0
_ENDINGS = (signal.SIGTERM, signal.SIGINT)


class MockCluster:
    """One mock broker, by librdkafka's public C interface: the Python client cannot name topics or delays."""

    def __init__(self, *, library: Path) -> None:
        self._rdkafka = _typed(ctypes.CDLL(str(library)))
        why = ctypes.create_string_buffer(512)
        configuration = self._rdkafka.rd_kafka_conf_new()
        self._rdkafka.rd_kafka_conf_set(configuration, b"log_level", b"3", why, len(why))
        self._client = self._rdkafka.rd_kafka_new(_PRODUCER, configuration, why, len(why))
        if not self._client:
            raise EmbeddedError(f"The in-memory broker could not be made: {why.value.decode()}.")
        self._cluster = self._rdkafka.rd_kafka_mock_cluster_new(self._client, 1)
        # The default of 3 s is what a group join would cost; real members arrive together or not at all here.
        self._rdkafka.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, _REBALANCE_DELAY_MS)

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        found: bytes = self._rdkafka.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return found.decode()

    def create_topic(self, name: str, *, partitions: int) -> None:
        """Make a topic.

        Raises:
            EmbeddedError: the broker refused.
        """
        failed: int = self._rdkafka.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if failed:
            raise EmbeddedError(
                f"The in-memory broker refused the topic {name!r} (error {failed}): choose another name."
            )

    def close(self) -> None:
        """Forget everything."""
        self._rdkafka.rd_kafka_mock_cluster_destroy(self._cluster)
        self._rdkafka.rd_kafka_destroy(self._client)


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes the shapes; without them a pointer would be cut to an int."""
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    shapes: dict[str, tuple[list[type], type | None]] = {
        "rd_kafka_conf_new": ([], pointer),
        "rd_kafka_conf_set": ([pointer, text, text, text, ctypes.c_size_t], number),
        "rd_kafka_new": ([number, pointer, text, ctypes.c_size_t], pointer),
        "rd_kafka_destroy": ([pointer], None),
        "rd_kafka_mock_cluster_new": ([pointer, number], pointer),
        "rd_kafka_mock_cluster_destroy": ([pointer], None),
        "rd_kafka_mock_cluster_bootstraps": ([pointer], text),
        "rd_kafka_mock_topic_create": ([pointer, text, number, number], number),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": ([pointer, ctypes.c_int32], None),
    }
    for name, (takes, gives) in shapes.items():
        function = getattr(library, name)
        function.argtypes, function.restype = takes, gives
    return library


def find_library() -> Path:
    """The librdkafka inside the ``confluent-kafka`` wheel.

    Raises:
        WheelMissingError: it is not installed.
    """
    for folder in (package_folder("confluent_kafka.libs"), package_folder("confluent_kafka")):
        found = (
            sorted(folder.glob("**/librdkafka*.so*")) + sorted(folder.glob("**/librdkafka*.dylib")) if folder else []
        )
        if found:
            return found[0]
    raise WheelMissingError(server="The in-memory broker", package="confluent-kafka")


def main(arguments: Sequence[str]) -> int:
    """Serve until told to stop or the parent is gone."""
    options = _parser().parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)  # before librdkafka's threads, which inherit it
    die_with_parent(signal=signal.SIGTERM)
    try:
        cluster = MockCluster(library=find_library())
        for topic in options.topic:
            name, _, partitions = topic.rpartition(":")
            cluster.create_topic(name, partitions=int(partitions))
    except EmbeddedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    _publish(cluster.address, options.port_file)
    signal.sigwait(_ENDINGS)
    cluster.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.embedded.broker", description="In-memory Kafka-wire broker")
    parser.add_argument("--port-file", type=Path, help="file to write the address to (default: standard output)")
    parser.add_argument(
        "--topic", action="append", default=[], metavar="NAME:PARTITIONS", help="topic to make; repeatable"
    )
    return parser


def _publish(address: str, file: Path | None) -> None:
    """Tell the address; the file appears whole or not at all."""
    if file is None:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        return
    unfinished = file.with_name(f"{file.name}.new")
    unfinished.write_text(f"{address}\n")
    unfinished.replace(file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
