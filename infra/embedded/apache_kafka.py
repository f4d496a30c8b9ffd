"""Apache Kafka itself, broker and controller in one (KRaft), from the jars that `make kafka` fetches."""

import os
import shutil
import socket
import struct
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra.embedded.errors import EmbeddedError, JarsMissingError, JavaMissingError, StartFailedError
from infra.embedded.process import free_port, last_lines
from infra.embedded.server import EmbeddedServer
from infra.embedded.topics import PARTITIONS

JARS = Path(__file__).parents[2] / ".cache" / "kafka"
"""Where `make kafka` puts them."""

_FORMAT_SECONDS = 120.0

_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.err.ref = err
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = %d %p %m (%c)%n
"""


class ApacheKafka(EmbeddedServer):
    """A real broker for tests, with Fairlead's topics; what it stored survives a restart."""

    name: ClassVar[str] = "kafka"
    patience: ClassVar[float] = 90.0

    def __init__(self, *, state: Path, jars: Path = JARS, advertised: int | None = None) -> None:
        """Take `advertised` as the port that clients are sent to, where that is a proxy's."""
        super().__init__(state=state)
        self._advertised = advertised
        self._jars = jars
        self._data = self.home / "data"
        self._temporary = self.home / "tmp"
        self._properties = self.home / "server.properties"
        self._logging = self.home / "log4j2.properties"

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and make Fairlead's topics, which it does not make by itself."""
        super().start()
        create_topics(self.address)

    def prepare(self) -> None:
        """Write its settings and, the first time, format its storage."""
        check_installed(self._jars)
        self._temporary.mkdir(exist_ok=True)
        self._logging.write_text(_LOGGING)
        if not self._data.exists():
            self._format()

    def command(self) -> list[str]:
        """The broker on its port, and its controller on another free one."""
        self._write_properties(controller=free_port())
        return [*self._jvm(heap="512m"), "kafka.Kafka", str(self._properties)]

    def is_ready(self) -> bool:
        """Whether the broker answers and counts itself among the living."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as connection:
                return brokers_known(connection) > 0
        except OSError:
            return False

    def _format(self) -> None:
        self._write_properties(controller=free_port())
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # An id that begins with a dash would be taken for an option.
        asked = [
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",
            f"--config={self._properties}",
        ]
        log = self.run / f"{self.name}.log"
        with log.open("ab") as words:
            done = subprocess.run(  # noqa: S603  our own command line
                [*self._jvm(heap="128m"), *asked],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                env=dict(self.environment),
                timeout=_FORMAT_SECONDS,
                check=False,
            )
        if done.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            problem = f"formatting its storage ended with status {done.returncode}"
            raise StartFailedError(server=self.name, problem=problem, log=log, tail=last_lines(log))

    def _jvm(self, *, heap: str) -> list[str]:
        """Small, quick to start, and writing nowhere but in its own directory."""
        return [
            _java(),
            f"-Xmx{heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
            f"-XX:ErrorFile={self.home}/crash-%p.log",
            f"-Djava.io.tmpdir={self._temporary}",
            f"-Dlog4j2.configurationFile={self._logging}",
            "-cp",
            f"{self._jars}/*",
        ]

    def _write_properties(self, *, controller: int) -> None:
        settings: Mapping[str, str] = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._advertised or self.port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self._data),
            "auto.create.topics.enable": "false",
            "num.partitions": "1",
            "default.replication.factor": "1",
            "offsets.topic.num.partitions": "2",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "log.segment.bytes": str(16 * 2**20),
            "log.index.size.max.bytes": str(2**20),
            "log.cleaner.dedupe.buffer.size": str(2 * 2**20),
            "num.network.threads": "2",
            "num.io.threads": "2",
            "background.threads": "2",
        }
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))


def check_installed(jars: Path = JARS) -> None:
    """See whether Apache Kafka could be started.

    Raises:
        JavaMissingError: there is no Java.
        JarsMissingError: there are no jars.
    """
    _java()
    if not any(jars.glob("kafka_*.jar")):
        raise JarsMissingError(jars=jars)


def create_topics(address: str, partitions: Mapping[str, int] = PARTITIONS, *, seconds: float = 20.0) -> None:
    """Make the topics that are not there yet. The in-memory broker does not know this request.

    Raises:
        EmbeddedError: the broker refused or did not answer.
    """
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    wanted = [NewTopic(name, num_partitions=count, replication_factor=1) for name, count in partitions.items()]
    # The client's annotation leaves the futures' type open.
    made: dict[str, Future[None]] = admin.create_topics(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        wanted, request_timeout=seconds
    )
    for name, outcome in made.items():
        try:
            outcome.result(seconds)
        except (KafkaException, TimeoutError) as error:
            if not _exists_already(error):
                raise EmbeddedError(
                    f"The Kafka at {address} refused the topic {name!r}: {error}. Look at the broker's log."
                ) from error


def _exists_already(error: Exception) -> bool:
    cause: object = error.args[0] if error.args else None
    return isinstance(cause, KafkaError) and cause.code() == KafkaError.TOPIC_ALREADY_EXISTS


def brokers_known(connection: socket.socket) -> int:
    """How many brokers are in the answer to a metadata request (version 1, no topics); 0 if it is cut short.

    Raises:
        OSError: the connection failed.
    """
    correlation, client = 7, b"fairlead"
    request = struct.pack(">hhih", 3, 1, correlation, len(client)) + client + struct.pack(">i", 0)
    connection.sendall(struct.pack(">i", len(request)) + request)
    answer = b""
    while len(answer) < 12:
        piece = connection.recv(4096)
        if not piece:
            return 0
        answer += piece
    _, _, brokers = struct.unpack_from(">iii", answer)
    return int(brokers)


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        raise JavaMissingError
    return java
