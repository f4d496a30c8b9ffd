"""A member of a consumer group, with the settings our guarantees need."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, cast

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from structlog import get_logger

log = get_logger(__name__)

SESSION_MS: Final = 6_000
"""The least a broker allows by default: so long a killed member keeps its partitions from the others."""

REBALANCE_MS: Final = 20_000
REQUEST_MS: Final = 40_000
"""Above the rebalance time: otherwise joining a group times out and the member rejoins for ever."""

_LEAVE_SECONDS: Final = 3.0

Record = ConsumerRecord[bytes | None, bytes | None]
Batch = Mapping[TopicPartition, Sequence[Record]]


class ConsumerBroken(Exception):
    """The consumer cannot go on. Build a new one; nothing that was not committed is lost."""


class EventConsumer:
    """Reads raw records; the caller commits what it has written down."""

    def __init__(self, *, bootstrap: str, topic: str, group: str, client_id: str, fetch_max_wait_ms: int) -> None:
        self._consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            client_id=client_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=1_500,
            rebalance_timeout_ms=REBALANCE_MS,
            request_timeout_ms=REQUEST_MS,
            max_poll_interval_ms=600_000,
            fetch_max_wait_ms=fetch_max_wait_ms,
            retry_backoff_ms=200,
        )

    async def start(self) -> None:
        """Join the group.

        Raises:
            ConsumerBroken: Kafka does not answer.
        """
        try:
            await self._consumer.start()
        except (KafkaError, OSError) as error:
            await self.stop()
            raise ConsumerBroken(f"cannot join the consumer group: {type(error).__name__}") from error

    async def stop(self) -> None:
        """Leave the group at once, so that the others need not wait for a timeout; in seconds, answered or not."""
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._consumer.stop()
        except TimeoutError:
            log.warning("consumer_left_unheard")
            await self._drop()
        except (KafkaError, OSError) as error:
            log.warning("consumer_stop_failed", error=type(error).__name__)

    async def _drop(self) -> None:
        with suppress(KafkaError, OSError):
            # stop() was waiting for a broker that may never answer; what it had left to close has no public end.
            if (fetcher := self._consumer._fetcher) is not None:  # pyright: ignore[reportPrivateUsage]
                await fetcher.close()
            await self._consumer._client.close()  # pyright: ignore[reportPrivateUsage]

    async def fetch(self, *, wait_ms: int, limit: int) -> Batch:
        """Return what has arrived, at most `limit` records, waiting up to `wait_ms`.

        Raises:
            ConsumerBroken: the consumer is dead.
        """
        try:
            return cast("Batch", await self._consumer.getmany(timeout_ms=wait_ms, max_records=limit))
        except (KafkaError, OSError) as error:
            raise ConsumerBroken(f"fetching failed: {type(error).__name__}") from error

    async def commit(self, batch: Batch) -> None:
        """Commit up to the last record of each partition. A refused commit means another member has it now."""
        offsets = {partition: records[-1].offset + 1 for partition, records in batch.items() if records}
        try:
            await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            log.warning("commit_refused", partitions=len(offsets))
        except (KafkaError, OSError) as error:
            raise ConsumerBroken(f"committing failed: {type(error).__name__}") from error


async def consume_for_ever(
    build: Callable[[], EventConsumer],
    take_in: Callable[[EventConsumer], Awaitable[None]],
    *,
    waits_for: tuple[type[Exception], ...] = (),
) -> None:
    """Let `take_in` read, with a new consumer whenever one breaks; pauses grow up to ten seconds.

    Args:
        build: returns a consumer that has not been started.
        take_in: reads from it for ever.
        waits_for: errors of its own that mean: begin again from what is committed.
    """
    pause = 0.5
    while True:
        consumer = build()
        try:
            await consumer.start()
            try:
                pause = 0.5
                await take_in(consumer)
            finally:
                await consumer.stop()
        except (ConsumerBroken, *waits_for) as error:
            log.warning("consumer_rebuilt", error=str(error), pause=pause)
            await asyncio.sleep(pause)
            pause = min(10.0, pause * 2)
