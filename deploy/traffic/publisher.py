"""Publishes records as an outside system would: in order, at a rate, and with proof that the broker has them."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from aiokafka import AIOKafkaProducer

from deploy.traffic.records import Record

REQUEST_BYTES_MAX: Final = 1024 * 1024
IN_FLIGHT_MAX: Final = 5_000
BURST_RECORDS: Final = 50
LINGER_MS: Final = 5


def _ignore(_: int) -> None:
    """Nobody wants to know how far it is."""


async def publish(
    bootstrap: str,
    records: Iterable[Record],
    *,
    records_per_second: float | None = None,
    published: Callable[[int], None] = _ignore,
) -> None:
    """Publish records in order and return when the broker has acknowledged all; `published` is told how many so far.

    Records of one key keep their order. Without `records_per_second` they go out as fast as they can be written.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        linger_ms=LINGER_MS,
        max_request_size=REQUEST_BYTES_MAX,
        client_id="upstream",
    )
    await producer.start()
    try:
        await _send(producer, records, records_per_second, published)
    finally:
        await producer.stop()


async def _send(
    producer: AIOKafkaProducer,
    records: Iterable[Record],
    records_per_second: float | None,
    published: Callable[[int], None],
) -> None:
    began, sent = time.monotonic(), 0
    in_flight: deque[asyncio.Future[object]] = deque()
    for record in records:
        wire = record.wire
        in_flight.append(await producer.send(wire.topic, key=wire.key, value=wire.value, headers=list(wire.headers)))
        sent += 1
        if len(in_flight) >= IN_FLIGHT_MAX:
            await in_flight.popleft()
        if sent % BURST_RECORDS == 0:
            published(sent)
            due = began + sent / records_per_second if records_per_second else 0.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    await asyncio.gather(*in_flight)
    published(sent)
