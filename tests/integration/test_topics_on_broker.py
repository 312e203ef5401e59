"""Topics are created from the registry, once, and a wrong one is refused."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.kafka import EmbeddedKafka
from deploy.topics import TopicMismatchError, create_topics
from shared.topics import TOPICS, Topic


async def test_topics_are_created_once_with_the_brokers_clock(kafka: EmbeddedKafka) -> None:
    await create_topics(kafka.bootstrap)
    assert await create_topics(kafka.bootstrap) == []
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        assert set(await admin.list_topics()) >= set(TOPICS)
    finally:
        await admin.close()


async def test_a_topic_with_other_partitions_is_refused(kafka: EmbeddedKafka) -> None:
    def topic(partitions: int) -> Topic:
        return Topic(
            name="inmail.test.mismatch", key="k", types=(), writer="upstream", readers=(), partitions=partitions
        )

    await create_topics(kafka.bootstrap, topics=[topic(2)])
    with pytest.raises(TopicMismatchError, match="has 2 partitions, not 3"):
        await create_topics(kafka.bootstrap, topics=[topic(3)])
