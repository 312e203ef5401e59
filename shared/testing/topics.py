"""Kafka topics in tests: emptied between tests, written and read as an outsider would."""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from shared.events import Event, decode
from shared.testing.builders import record
from shared.topics import TOPICS

_READ_SECONDS_MAX = 60.0
_POLL_MS = 100


async def empty_topics(bootstrap: str) -> None:
    """Delete every record of every topic of the registry that allows it; offsets go on from where they were."""
    partitions = [
        TopicPartition(t.name, p) for t in TOPICS.values() if t.cleanup == "delete" for p in range(t.partitions)
    ]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await consumer.start()
    await admin.start()
    try:
        ends = await consumer.end_offsets(partitions)
        await admin.delete_records({tp: RecordsToDelete(before_offset=end) for tp, end in ends.items() if end})
    finally:
        await consumer.stop()
        await admin.close()


async def publish(bootstrap: str, topic: str, events: Iterable[Event[Any]]) -> None:
    """Send events, in order, and wait until the broker has them."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        pending = []
        for event in events:
            key, value, headers = record(event)
            pending.append(await producer.send(topic, key=key, value=value, headers=headers))
        await asyncio.gather(*pending)
    finally:
        await producer.stop()


async def read(bootstrap: str, topic: str, *, count: int) -> list[Event[Any]]:
    """Read a topic from its first record until `count` distinct events were seen, in order, repeats included.

    Raises:
        TimeoutError: they did not come.
    """
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", group_id=None)
    await consumer.start()
    events: list[Event[Any]] = []
    try:
        async with asyncio.timeout(_READ_SECONDS_MAX):
            while len({e.id for e in events}) < count:
                fetched = await consumer.getmany(timeout_ms=_POLL_MS)
                events += [
                    decode(r.value, key=r.key, headers=tuple(r.headers), topic=topic)
                    for records in fetched.values()
                    for r in records
                ]
        return events
    finally:
        await consumer.stop()
