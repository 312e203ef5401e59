"""What a topic holds, read once from one place to another by whoever looks at it from outside."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

_POLL_MS = 200

Offsets = Mapping[TopicPartition, int]


@asynccontextmanager
async def reader(bootstrap: str, *, client_id: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer without a group."""
    # Not by seeking to the beginning: a reset to the end, the default, may still be on its way and win.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, client_id=client_id, group_id=None, auto_offset_reset="earliest"
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def records_between(
    consumer: AIOKafkaConsumer, starts: Offsets, ends: Offsets
) -> AsyncIterator[tuple[TopicPartition, list[ConsumerRecord]]]:
    """Give the records from `starts` up to, and without, `ends`, in order per partition, some at a time."""
    unread = {slot for slot, end in ends.items() if starts[slot] < end}
    consumer.assign(list(unread))
    for slot in unread:
        consumer.seek(slot, starts[slot])
    while unread:
        for slot, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
            yield slot, [r for r in records if r.offset < ends[slot]]
        unread = {slot for slot in unread if await consumer.position(slot) < ends[slot]}
