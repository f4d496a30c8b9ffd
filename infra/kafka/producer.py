"""Events into Kafka, confirmed by all replicas or refused in a sentence."""

import asyncio
import time
from contextlib import suppress
from typing import Final, Protocol, cast

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from schemas.envelope import Headers

SEND_SECONDS: Final = 5.0
"""Longest wait for a confirmation. After it the record's fate is unknown."""

_REQUEST_MS = 4_000
# Longer than the client's own clocks take to connect, ask for versions and ask for metadata: cancelled in between,
# its bootstrap leaves a connection behind that nobody can close.
_CONNECT_SECONDS = 3 * _REQUEST_MS / 1_000 + 1
_PROBE_SECONDS = 2.0
_REBUILD_AFTER_SECONDS = 20.0

_log = structlog.stdlib.get_logger()


class NotAccepted(Exception):
    """Kafka did not confirm the event. Send the same message again, with the same key, after `retry_after`."""

    def __init__(self, sentence: str, *, retry_after: int) -> None:
        super().__init__(sentence)
        self.retry_after: int = retry_after
        """Seconds."""


class TooLarge(NotAccepted):
    """Kafka never takes a record of this size. Sending it again changes nothing."""


class _Client(Protocol):
    async def fetch_all_metadata(self) -> object: ...

    async def close(self) -> None: ...


class _Sender(Protocol):
    async def close(self) -> None: ...


class _Producer(Protocol):
    """The part of `AIOKafkaProducer` in use, typed."""

    client: _Client
    _sender: _Sender

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send_and_wait(
        self, topic: str, value: bytes | None, key: bytes | None, *, headers: Headers
    ) -> object: ...


class EventProducer:
    """One idempotent producer, kept connected by a task of its own.

    The broker may be down when the process starts, or go away later: `ready` is then False, sends are refused
    at once instead of each waiting its time, and everything mends itself when the broker answers again.
    """

    def __init__(self, *, bootstrap: str, client_id: str = "fairlead", check_seconds: float = 1.0) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._check_seconds = check_seconds
        self._producer: _Producer | None = None
        self._answers = False
        self._silent_since = time.monotonic()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the broker answered lately."""
        return self._producer is not None and self._answers

    async def start(self) -> None:
        """Try to connect once and keep trying in the background; a broker that is down is no error."""
        await self._check()
        self._keeper = asyncio.create_task(self._keep(), name="kafka-producer-keeper")

    async def stop(self) -> None:
        """Send what is pending, for a moment, and close. Safe to repeat."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer)

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Produce one event and wait until all replicas have it.

        Raises:
            TooLarge: it will always be refused.
            NotAccepted: it was refused, or is not known to have arrived.
        """
        producer = self._producer
        if producer is None or not self._answers:
            raise NotAccepted(
                "The event log does not answer, so the message was not accepted; send it again shortly.",
                retry_after=2,
            )
        try:
            async with asyncio.timeout(SEND_SECONDS):
                # A fresh list: instrumentation appends to it.
                await producer.send_and_wait(topic, value, key, headers=list(headers))
        except TimeoutError as error:
            await self._abandon(producer)
            raise NotAccepted(
                "The event log did not confirm the message in time, so its fate is unknown; send it again with "
                "the same key, which cannot make it count twice.",
                retry_after=5,
            ) from error
        except MessageSizeTooLargeError as error:
            raise TooLarge(
                "The message is larger than the event log takes; send a smaller one.", retry_after=0
            ) from error
        except (KafkaError, OSError) as error:
            _log.warning("kafka_send_refused", topic=topic, error=type(error).__name__)
            raise NotAccepted(
                "The event log refused the message; send it again shortly with the same key.", retry_after=2
            ) from error

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._check_seconds if self._answers else self._check_seconds / 2)
            try:
                await self._check()
            except Exception:  # noqa: BLE001  (without its keeper a producer that is not ready would stay so)
                _log.exception("kafka_check_failed")

    async def _check(self) -> None:
        """Connect if not connected, else ask the broker something; note whether it answers."""
        if self._producer is not None and self._worn_out():
            await self._abandon(self._producer)
        try:
            if self._producer is None:
                self._producer = await self._connect()
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._producer.client.fetch_all_metadata()
        except (KafkaError, OSError, TimeoutError) as error:
            if self._answers:
                _log.warning("kafka_silent", error=type(error).__name__)
            self._went_silent()
            return
        if not self._answers:
            _log.info("kafka_answers")
        self._answers = True

    def _went_silent(self) -> None:
        if self._answers:
            self._silent_since = time.monotonic()
        self._answers = False

    def _worn_out(self) -> bool:
        """Tell whether a fresh producer is likelier to work: new addresses, or a sender that gave up."""
        return not self._answers and time.monotonic() - self._silent_since > _REBUILD_AFTER_SECONDS

    async def _connect(self) -> _Producer:
        producer = cast(
            "_Producer",
            AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                request_timeout_ms=_REQUEST_MS,
                metadata_max_age_ms=60_000,
            ),
        )
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await producer.start()
        except BaseException:
            await _close(producer)
            raise
        return producer

    async def _abandon(self, producer: _Producer) -> None:
        """Drop a producer with all it has not sent: a message that was refused must not arrive later after all."""
        if self._producer is producer:
            self._producer = None
            self._went_silent()
            self._silent_since = time.monotonic()
        await _drop(producer)


async def _close(producer: _Producer) -> None:
    """Send what is pending, for a moment."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            await producer.stop()
    except (KafkaError, OSError, TimeoutError):
        await _drop(producer)


async def _drop(producer: _Producer) -> None:
    with suppress(KafkaError, OSError):
        # stop() waits for a broker that may never come back; its sender has no public end.
        await producer._sender.close()  # pyright: ignore[reportPrivateUsage]
        await producer.stop()
        await producer.client.close()
