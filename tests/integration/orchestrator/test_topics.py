"""Topics are made once, and left alone after that."""

import uuid

import pytest

from infra.kafka.topics import TopicsNotCreated, create_topics


@pytest.mark.apache_kafka
async def test_missing_topics_are_made_and_present_ones_left_alone(apache_kafka: str) -> None:
    """The first call makes what is missing and names it, the second makes nothing."""
    names = [f"test.{uuid.uuid4().hex[:8]}" for _ in range(2)]

    assert await create_topics(apache_kafka, partitions=3, topics=names[:1]) == names[:1]
    assert await create_topics(apache_kafka, partitions=5, topics=names) == names[1:]
    assert await create_topics(apache_kafka, partitions=5, topics=names) == []


@pytest.mark.apache_kafka
async def test_a_refused_topic_is_named(apache_kafka: str) -> None:
    """More copies than brokers cannot be had, and the error says which topic."""
    with pytest.raises(TopicsNotCreated, match=r"test\.copies"):
        await create_topics(apache_kafka, partitions=1, replication=3, topics=["test.copies"])


async def test_a_kafka_that_is_away_is_one_sentence() -> None:
    """Nobody at the address is an error that says what to look at."""
    with pytest.raises(TopicsNotCreated, match="is it running"):
        await create_topics("127.0.0.1:1", partitions=1)
