"""The topics, created where they are missing. An existing one is left as it is: more partitions would break order."""

from collections.abc import Collection, Sequence
from typing import Protocol, cast

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.names import TOPICS


class _Answer(Protocol):
    """The broker's answer, which aiokafka leaves untyped: (topic, error code, …) for each topic."""

    topic_errors: Sequence[tuple[str, int]]


class TopicsNotCreated(Exception):
    """Kafka did not create a topic. The message names it and says why."""


async def create_topics(
    bootstrap: str, *, partitions: int, replication: int = 1, topics: Collection[str] = TOPICS
) -> list[str]:
    """Create the topics that are missing; returns those.

    Args:
        bootstrap: `host:port[,host:port]`.
        partitions: of each new topic. Fixed from then on: a conversation's key must keep its partition.
        replication: copies of each record; at most the number of brokers.
        topics: their names.

    Raises:
        TopicsNotCreated: the broker does not answer or refused.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    try:
        await admin.start()
        if set(topics) <= set(await admin.list_topics()):
            return []
        wanted = [NewTopic(name, num_partitions=partitions, replication_factor=replication) for name in topics]
        answer = cast("_Answer", await admin.create_topics(wanted))
    except (KafkaError, OSError) as error:
        raise TopicsNotCreated(
            f"Kafka at {bootstrap} does not answer ({type(error).__name__}); is it running?"
        ) from error
    finally:
        await admin.close()
    for name, code, *_ in answer.topic_errors:
        if code and for_code(code) is not TopicAlreadyExistsError:
            raise TopicsNotCreated(f"Kafka refused the topic {name}: {for_code(code).__name__}")
    return [name for name, code, *_ in answer.topic_errors if not code]
