"""When a Kafka may be called ready: it stores a record and coordinates a group. An open port proves neither."""

import asyncio
import contextlib
import uuid

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

PROBE_NAME = "inmail.stack.probe"
POLL_SECONDS = 0.05
REQUEST_SECONDS_MAX = 5.0


async def wait_until_ready(bootstrap: str) -> None:
    """Return when the broker works; the caller sets the deadline."""
    while True:
        await _wait_for_port(bootstrap)
        try:
            await probe(bootstrap)
        except (KafkaError, OSError, TimeoutError):
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


async def probe(bootstrap: str) -> None:
    """Produce a record and ask a group coordinator; raises when either fails. Leaves nothing behind."""
    topic = f"{PROBE_NAME}.{uuid.uuid4().hex[:8]}"  # own name: two that probe must not delete each other's topic
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(REQUEST_SECONDS_MAX * 1000))
    try:
        await admin.start()
        await admin.create_topics([NewTopic(topic, 1, 1)])
        try:
            await _wait_for_topic(admin, topic, listed=True)  # a producer that comes too early logs an error
            await _produce(bootstrap, topic)
            # Answered only once the coordinator has loaded its part of the offsets topic.
            await admin.list_consumer_group_offsets(PROBE_NAME)
        finally:
            await admin.delete_topics([topic])
        await _wait_for_topic(admin, topic, listed=False)
    finally:
        await admin.close()


async def _wait_for_topic(admin: AIOKafkaAdminClient, topic: str, *, listed: bool) -> None:
    """Wait until the broker has heard from its controller that the topic is there, or gone."""
    async with asyncio.timeout(REQUEST_SECONDS_MAX):
        while (topic in await admin.list_topics()) != listed:  # noqa: ASYNC110 - the broker sends no events
            await asyncio.sleep(POLL_SECONDS)


async def _produce(bootstrap: str, topic: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", request_timeout_ms=int(REQUEST_SECONDS_MAX * 1000)
    )
    try:
        await producer.start()
        await asyncio.wait_for(producer.send_and_wait(topic, b"ready?"), REQUEST_SECONDS_MAX)
    finally:
        await producer.stop()


async def _wait_for_port(bootstrap: str) -> None:
    """Wait for the port first: the client library would log an error for each try."""
    host, _, port = bootstrap.rpartition(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(POLL_SECONDS)
            continue
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return
