"""The embedded servers: they work, they keep what they should, and they leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis.asyncio import Redis
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from infra.embedded import launcher
from infra.embedded.errors import NotRunningError, StartFailedError, StateInUseError, WheelMissingError
from infra.embedded.memory_kafka import MemoryKafka
from infra.embedded.postgres import PostgresServer
from infra.embedded.redis import RedisServer
from infra.embedded.servers import EmbeddedServers
from schemas.names import TOPIC_TURNS

_SUPERVISOR = """
import json, signal, sys
from pathlib import Path
from infra.embedded.servers import EmbeddedServers
try:
    with EmbeddedServers(Path(sys.argv[1])) as servers:
        print(json.dumps(servers.processes), flush=True)
        signal.pause()
except KeyboardInterrupt:
    sys.exit(130)
"""


async def ask(database: str, *statements: str) -> object:
    """Run statements one by one, each for itself; the first value of the last one's first row."""
    engine = create_async_engine(database, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    value: object = None
    async with engine.connect() as connection:
        for statement in statements:
            result = await connection.execute(text(statement))
            value = result.scalar() if result.returns_rows else None
    await engine.dispose()
    return value


def processes_of(state: Path) -> list[psutil.Process]:
    """Every process that was told of the state directory or works in it."""
    return [process for process in psutil.process_iter() if _belongs(process, str(state))]


def _belongs(process: psutil.Process, state: str) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return any(state in part for part in process.cmdline()) or process.cwd().startswith(state)
    except psutil.Error:
        return False


def wait_until(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Wait for a condition, not for a time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


@pytest.fixture
def supervisor(state_directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process of its own, with everything started."""
    with subprocess.Popen(
        [sys.executable, "-c", _SUPERVISOR, str(state_directory)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()).keys() == {"kafka", "redis", "postgres"}
        yield process
        process.kill()


def test_nothing_is_left_after_stop(state_directory: Path) -> None:
    """Stopping ends every process, also those that servers started themselves."""
    with EmbeddedServers(state_directory) as servers:
        assert servers.processes.keys() == {"kafka", "redis", "postgres"}
        assert len(processes_of(state_directory)) > len(servers.processes)
    assert processes_of(state_directory) == []
    assert servers.processes == {}
    assert list((state_directory / "run").glob("*.pid")) == []


def test_interrupt_ends_everything(supervisor: subprocess.Popen[str], state_directory: Path) -> None:
    """Ctrl-C in the supervisor ends the servers before it ends itself."""
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(20) == 130
    assert processes_of(state_directory) == []


def test_killed_supervisor_leaves_no_child(supervisor: subprocess.Popen[str], state_directory: Path) -> None:
    """SIGKILL of the supervisor ends the servers, and the next supervisor can begin at once."""
    supervisor.kill()
    supervisor.wait(20)
    with EmbeddedServers(state_directory, kafka="elsewhere:9092", redis="redis://elsewhere") as servers:
        assert servers.processes.keys() == {"postgres"}
    wait_until(lambda: processes_of(state_directory) == [])


async def test_data_survive_a_restart(state_directory: Path) -> None:
    """What PostgreSQL and Redis were told is there under the next supervisor."""
    with EmbeddedServers(state_directory, kafka="elsewhere:9092") as servers:
        await ask(servers.endpoints.database, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
        async with Redis.from_url(servers.endpoints.redis) as redis:
            await redis.set("kept", "7")
    with EmbeddedServers(state_directory, kafka="elsewhere:9092") as servers:
        assert await ask(servers.endpoints.database, "SELECT n FROM kept") == 7
        async with Redis.from_url(servers.endpoints.redis) as redis:
            assert await redis.get("kept") == b"7"


async def test_postgres_survives_being_killed(state_directory: Path) -> None:
    """After SIGKILL it comes back on the same port with every committed row."""
    with EmbeddedServers(state_directory, kafka="elsewhere:9092", redis="redis://elsewhere") as servers:
        before = servers.endpoints
        await ask(before.database, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
        servers.kill("postgres")
        assert servers.processes == {}
        assert (state_directory / "postgres" / "data" / "postmaster.pid").exists()
        servers.restart("postgres")
        assert servers.endpoints == before
        assert await ask(before.database, "SELECT n FROM kept") == 7


def test_stale_pid_of_a_living_stranger(state_directory: Path) -> None:
    """A pid file left by a crash does not stop PostgreSQL when the number belongs to another process by now."""
    server = PostgresServer(state=state_directory)
    server.start()
    server.kill()
    stale = state_directory / "postgres" / "data" / "postmaster.pid"
    stale.write_text(stale.read_text().replace(stale.read_text().split("\n")[0], str(os.getppid()), 1))
    server.start()
    server.stop()


def test_servers_outlive_the_thread_that_started_them(state_directory: Path) -> None:
    """The kernel ties a child to the forking thread; ours are tied to the process."""
    server = RedisServer(state=state_directory)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        assert server.alive
        assert server.is_ready()
    finally:
        server.stop()


async def test_a_frozen_server_goes_on(state_directory: Path) -> None:
    """A paused server answers nothing and, resumed, everything."""
    with EmbeddedServers(state_directory, kafka="elsewhere:9092", database="postgresql://elsewhere") as servers:
        servers.pause("redis")
        async with Redis.from_url(servers.endpoints.redis, socket_timeout=20) as redis:
            servers.resume("redis")
            assert await redis.ping()


def test_long_private_path(state_directory: Path) -> None:
    """A state directory may have a path of 200 characters and more, and be closed to everybody else."""
    long = state_directory / ("d" * 100) / ("e" * 100)
    assert len(str(long)) > 200
    with EmbeddedServers(long) as servers:
        assert len(servers.processes) == 3
        assert long.stat().st_mode & 0o777 == 0o700


def test_second_supervisor_is_refused(state_directory: Path) -> None:
    """Two supervisors on one directory would ruin it: the second is told who has it."""

    def only_redis() -> EmbeddedServers:
        return EmbeddedServers(state_directory, kafka="elsewhere:9092", database="postgresql://elsewhere")

    with only_redis(), pytest.raises(StateInUseError, match=str(os.getpid())):
        only_redis().start()
    with only_redis() as servers:
        assert servers.processes.keys() == {"redis"}


def test_given_addresses_start_nothing(state_directory: Path) -> None:
    """With all three addresses given nothing runs and nothing is written."""
    state = state_directory / "none"
    with EmbeddedServers(state, kafka="k:1", redis="redis://r", database="postgresql://d") as servers:
        assert servers.processes == {}
        assert servers.endpoints.kafka == "k:1"
        with pytest.raises(NotRunningError):
            servers.kill("kafka")
    assert not state.exists()


@pytest.mark.parametrize("server", [PostgresServer, RedisServer, MemoryKafka])
def test_missing_wheel_says_what_to_do(
    server: type[PostgresServer | RedisServer | MemoryKafka],
    state_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without its wheel a server names the command that installs it."""
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(WheelMissingError, match="make setup"):
        server(state=state_directory).start()


def test_failed_start_tells_the_log(state_directory: Path) -> None:
    """A server that cannot start is stopped and its last words are in the error."""
    (state_directory / "redis").mkdir()
    (state_directory / "redis" / "appendonly.aof").write_text("this is no append-only file\n")
    with pytest.raises(StartFailedError, match="Bad file format"):
        RedisServer(state=state_directory).start()
    assert processes_of(state_directory) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else to become")
def test_unreachable_directory_says_what_to_do(state_directory: Path) -> None:
    """Where user namespaces are refused and `nobody` cannot reach the directory, nothing is handed over."""
    inner = state_directory / "inner"
    inner.mkdir()
    command = [sys.executable, "-I", "-S", launcher.__file__, "--nobody", str(inner), "--", "id", "-u"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert refused.returncode == launcher.REFUSED
    assert "chmod o+x" in refused.stderr
    assert inner.stat().st_uid == 0


@pytest.mark.apache_kafka
@pytest.mark.usefixtures("apache_installed")
async def test_apache_kafka_keeps_its_port_and_records(state_directory: Path) -> None:
    """A restarted Apache Kafka is where it was with what it had, and leaves nothing behind when stopped."""
    with EmbeddedServers(
        state_directory, redis="redis://elsewhere", database="postgresql://elsewhere", broker="apache"
    ) as servers:
        kafka = servers.endpoints.kafka
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            await producer.send_and_wait(TOPIC_TURNS, b"kept", partition=0)
        servers.restart("kafka")
        assert servers.endpoints.kafka == kafka
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
        consumer.assign([TopicPartition(TOPIC_TURNS, 0)])
        async with consumer:
            await consumer.seek_to_beginning()
            assert (await consumer.getone()).value == b"kept"
    assert processes_of(state_directory) == []


async def test_nearest_neighbour(empty_database_url: str) -> None:
    """The vector extension is there and finds the nearest."""
    nearest = await ask(
        empty_database_url,
        "CREATE EXTENSION vector",
        "CREATE TABLE points (name text, at vector(2))",
        "INSERT INTO points VALUES ('near', '[1,1]'), ('far', '[9,9]')",
        "CREATE INDEX ON points USING hnsw (at vector_l2_ops)",
        "SELECT name FROM points ORDER BY at <-> '[2,2]' LIMIT 1",
    )
    assert nearest == "near"


async def test_migrated_database(database_url: str) -> None:
    """A test's own database has the schema and nothing of another test."""
    assert await ask(database_url, "SELECT count(*) FROM alembic_version") == 1


async def test_redis_runs_scripts_and_carries_messages(redis_url: str) -> None:
    """Lua and pub/sub work, and the database is empty at first."""
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as listener:
        assert await redis.dbsize() == 0
        await listener.subscribe("news")
        await listener.get_message(timeout=10)
        script = redis.register_script(
            "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('PUBLISH', 'news', ARGV[1])"
        )
        assert await script(keys=["k"], args=["hello"]) == 1
        heard = cast(
            "Mapping[str, object] | None", await listener.get_message(ignore_subscribe_messages=True, timeout=10)
        )
        assert heard is not None
        assert heard["data"] == b"hello"


async def test_idempotent_produce_and_group_consume(kafka: str, new_topic: Callable[[int], str]) -> None:
    """Both brokers take idempotent writes and hand them, in order within a key, to a consumer group."""
    topic = new_topic(4)
    sent = [f"{number}".encode() for number in range(20)]
    async with AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True, acks="all") as producer:
        for value in sent:
            await producer.send_and_wait(topic, value, key=b"one")
    received: list[bytes] = []
    async with AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka,
        group_id=topic,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=10,
    ) as consumer:
        while len(received) < len(sent):
            received.append(cast("bytes", (await consumer.getone()).value))
        await consumer.commit()
    assert received == sent
