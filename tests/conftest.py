"""Real servers for the tests, one of each a session, with a clean place in it for each test.

What a test asks for by name is started when it is first asked for, and only then:

- ``database_url``: a fresh, migrated PostgreSQL database; ``empty_database_url``: one without a schema.
- ``redis_url``: an emptied Redis.
- ``kafka``: runs the test twice, on the in-memory broker and Apache Kafka; ``new_topic`` makes topics there.
- ``memory_kafka``: the in-memory broker alone, shared; ``fresh_kafka``: one that nobody has written to.
- ``state_directory``: a place on disk that goes away with the test.

Everything lives under ``.cache/test-state/<process>`` and is gone at the end, also after Ctrl-C. Under
pytest-xdist each worker has its own servers. An address in ``FAIRLEAD_TEST_KAFKA`` takes the place of an
Apache Kafka started here; ``FAIRLEAD_REQUIRE_APACHE_KAFKA=1`` makes its absence a failure.
"""

import asyncio
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from redis import Redis
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine
from xdist.remote import Producer

from infra.embedded.errors import JarsMissingError, JavaMissingError
from infra.embedded.memory_kafka import MemoryKafka
from infra.embedded.postgres import PostgresServer
from infra.embedded.redis import RedisServer
from infra.embedded.server import EmbeddedServer
from tests.scheduling import Scheduling


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Give pytest-xdist the scheduler of `tests/scheduling.py`."""
    return Scheduling(config, log)


_STATES = Path(__file__).parents[1] / ".cache" / "test-state"
_TEMPLATE = "migrated"

MakeTopic = Callable[[int], str]
"""Makes a topic with so many partitions and returns its name."""


@pytest.fixture(scope="session")
def session_state() -> Iterator[Path]:
    """The directory of this process's servers."""
    _forget_dead_sessions()
    state = _STATES / str(os.getpid())
    state.mkdir(parents=True, mode=0o700)
    yield state
    shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
def state_directory(session_state: Path) -> Iterator[Path]:
    """A directory of the test's own, for servers it starts itself."""
    state = session_state / uuid.uuid4().hex[:8]
    state.mkdir(mode=0o700)
    yield state
    shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(session_state: Path) -> Iterator[PostgresServer]:
    """One PostgreSQL for the session; nothing in it is to outlive the machine, and half its time would go to disks."""
    server = PostgresServer(state=session_state, settings={"fsync": "off", "full_page_writes": "off"})
    yield from _served(server)


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database to copy: copying takes milliseconds, migrating would not."""
    from infra.postgres.migrate import upgrade

    _administer(postgres_server, f"CREATE DATABASE {_TEMPLATE}")
    _in_thread(lambda: upgrade(postgres_server.database_url(_TEMPLATE)))
    return _TEMPLATE


@pytest.fixture
def database_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """A migrated database for one test: ``postgresql+asyncpg://...``."""
    yield from _database(postgres_server, template=migrated_template)


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database with nothing in it for one test."""
    yield from _database(postgres_server, template="template1")


@pytest.fixture(scope="session")
def redis_server(session_state: Path) -> Iterator[RedisServer]:
    """One Redis for the session."""
    yield from _served(RedisServer(state=session_state))


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An emptied Redis for one test: ``redis://127.0.0.1:PORT/0``."""
    with Redis(port=redis_server.port) as client:
        client.flushall()
    return redis_server.address


@pytest.fixture(scope="session")
def memory_kafka(session_state: Path) -> Iterator[str]:
    """The bootstrap address of the session's in-memory broker."""
    for server in _served(MemoryKafka(state=session_state / "memory")):
        yield server.address


@pytest.fixture
def fresh_kafka(state_directory: Path) -> Iterator[str]:
    """The bootstrap address of an in-memory broker for one test."""
    for server in _served(MemoryKafka(state=state_directory)):
        yield server.address


@pytest.fixture(scope="session")
def apache_installed() -> None:
    """Skips the test, or fails it where that is asked for, if Apache Kafka cannot be started here."""
    from infra.embedded.apache_kafka import check_installed

    try:
        check_installed()
    except (JavaMissingError, JarsMissingError) as missing:
        if os.environ.get("FAIRLEAD_REQUIRE_APACHE_KAFKA") == "1":
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def apache_kafka(session_state: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The bootstrap address of a real Apache Kafka that has Fairlead's topics."""
    from infra.embedded.apache_kafka import ApacheKafka, create_topics

    given = os.environ.get("FAIRLEAD_TEST_KAFKA")
    if given:
        create_topics(given)
        yield given
        return
    request.getfixturevalue("apache_installed")
    for server in _served(ApacheKafka(state=session_state / "apache")):
        yield server.address


_BOTH_BROKERS = ["memory", pytest.param("apache-kafka", marks=pytest.mark.apache_kafka)]


@pytest.fixture(scope="session", params=_BOTH_BROKERS)
def broker_kind(request: pytest.FixtureRequest) -> str:
    """``memory`` or ``apache-kafka``."""
    return str(request.param)


@pytest.fixture(scope="session")
def kafka(broker_kind: str, request: pytest.FixtureRequest) -> str:
    """The bootstrap address of each kind of broker in turn."""
    address: str = request.getfixturevalue("memory_kafka" if broker_kind == "memory" else "apache_kafka")
    return address


@pytest.fixture
def new_topic(kafka: str, broker_kind: str) -> MakeTopic:
    """Makes topics nobody else uses; the in-memory broker makes them when used, with four partitions."""

    def make(partitions: int) -> str:
        name = f"test.{uuid.uuid4().hex[:12]}"
        if broker_kind == "apache-kafka":
            from infra.embedded.apache_kafka import create_topics

            create_topics(kafka, {name: partitions})
        return name

    return make


Server = TypeVar("Server", bound=EmbeddedServer)


def _served(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _database(server: PostgresServer, *, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    _administer(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield server.database_url(name)
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(server: PostgresServer, statement: str) -> None:
    """Run one statement in the server's own database."""

    async def run() -> None:
        engine = create_async_engine(server.address, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        async with engine.connect() as connection:
            await connection.execute(text(statement))
        await engine.dispose()

    _in_thread(lambda: asyncio.run(run()))


def _in_thread(work: Callable[[], None]) -> None:
    """A thread may run an event loop of its own without touching that of the tests."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="fixture") as pool:
        pool.submit(work).result()


def _forget_dead_sessions() -> None:
    """A session that was killed could not clean up; its servers died with it."""
    for state in _STATES.glob("*"):
        if state.name.isdigit() and not psutil.pid_exists(int(state.name)):
            shutil.rmtree(state, ignore_errors=True)
