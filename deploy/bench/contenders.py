"""The ingestion hop in several ways, each a process of its own: `python -m deploy.bench.contenders NAME COUNT`.

All validate the same events, apply the same decisions to the same tables and publish the same events with the same
durability (Postgres with synchronous commit, the broker with acks=all). What differs is what they guarantee when
something fails, and how much they do at once. Prints {"events", "seconds"}: from the first record received to the last
acknowledgement.
"""

import asyncio
import contextlib
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord

from services.ingestion.service import SPEC, IngestionHandler
from shared.bulkhead import Bulkhead
from shared.events import decode
from shared.health import Health
from shared.metrics import Metrics
from shared.postgres import create_pool, transaction
from shared.settings import Settings
from shared.stream.effects import Effects
from shared.stream.outbox import OutboxRow, Publication
from shared.stream.publisher import Publisher, create_producer
from shared.stream.records import AnyIncoming, Incoming, Position
from shared.stream.service import Resources, ServiceProcess
from shared.topics import MESSAGING_EVENTS

BATCH_RECORDS = 2_000
_POLL_SECONDS = 0.002


class Clock:
    """Counts events from the first to the last."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.done = 0
        self.finished = asyncio.Event()
        self._started: float | None = None
        self.seconds = 0.0

    def start(self) -> None:
        """The first record is here."""
        if self._started is None:
            self._started = time.perf_counter()

    def add(self, events: int) -> None:
        """So many more are applied and acknowledged."""
        self.done += events
        if self.done >= self.count and self._started is not None and not self.finished.is_set():
            self.seconds = time.perf_counter() - self._started
            self.finished.set()


class Hop:
    """What all ways but ours share: the handler, without the kit around it."""

    def __init__(self, pool: asyncpg.Pool, settings: Settings) -> None:
        self.pool = pool
        self._handler = IngestionHandler(Resources(SPEC.name, settings, Metrics(SPEC.name), pool, Bulkhead(settings)))

    async def apply(self, incomings: Sequence[AnyIncoming], *, dedupe: bool) -> list[OutboxRow]:
        """One transaction: first sightings only where `dedupe`, the handler's effects, and what is to be published."""
        effects = Effects(SPEC.name)
        async with transaction(self.pool) as tx:
            if dedupe:
                incomings = await _unseen(tx, incomings)
            if incomings:
                await self._handler.handle(tx, incomings, effects)
        return [OutboxRow(0, topic, r.keys, r.payloads) for (_, _, topic), r in effects.outgoing.items()]


async def _unseen(tx: asyncpg.Connection, incomings: Sequence[AnyIncoming]) -> list[AnyIncoming]:
    ids = [blake2b(f"{i.event.source}\0{i.event.id}".encode(), digest_size=16).digest() for i in incomings]
    rows = await tx.fetch(
        "INSERT INTO inbox (identity, content_hash) SELECT i, '' FROM unnest($1::bytea[]) AS n (i) "
        "ON CONFLICT DO NOTHING RETURNING identity",
        ids,
    )
    new = {row["identity"] for row in rows}
    return [incoming for incoming, identity in zip(incomings, ids, strict=True) if identity in new]


def incoming_of(
    topic: str, partition: int, offset: int, timestamp_ms: int, key: bytes, value: bytes, headers: Any
) -> AnyIncoming:
    """Validate one record."""
    pairs = tuple(headers)
    event = decode(value, key=key, headers=pairs, topic=topic)
    stamp = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return Incoming(Position(topic, partition, offset), stamp, event, key, value, pairs)


def _incoming(r: ConsumerRecord) -> AnyIncoming:
    return incoming_of(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers)


async def send_each(producer: AIOKafkaProducer, rows: Sequence[OutboxRow]) -> None:
    """Send record by record and wait for all acknowledgements."""
    pending = [
        await producer.send(row.topic, key=key, value=value)
        for row in rows
        for key, value in zip(row.keys, row.payloads, strict=True)
    ]
    await asyncio.gather(*pending)


async def ours(settings: Settings, clock: Clock) -> None:
    """The service itself, with every guarantee on."""
    process = ServiceProcess(SPEC, settings, Metrics(SPEC.name), Health(settings.progress_seconds_max))
    running = asyncio.create_task(process.run())
    first: dict[tuple[str, int], int] = {}
    applied = 0
    while applied < clock.count:
        await asyncio.sleep(_POLL_SECONDS)
        if process.consumer is None:
            continue
        for slot, claim in process.consumer.claims.items():
            first.setdefault(slot, claim.next_offset)
        if first:
            clock.start()
        applied = sum(c.next_offset - first[slot] for slot, c in process.consumer.claims.items())
    process.stop()  # sends what is left, and waits for it
    await running
    clock.add(applied)


async def limit(settings: Settings, clock: Clock) -> None:
    """A bare batch loop without guarantees: no fence, no inbox, no outbox; publishing overlaps the next batch."""
    pool = await create_pool(settings, service=SPEC.name)
    hop = Hop(pool, settings)
    publisher = Publisher(pool, settings, consumer="limit", fence_rejections=Metrics("limit").fence_rejections)
    await publisher.start()
    async with _consumer(settings, "limit") as consumer:
        while clock.done < clock.count:
            records = await _batch(consumer)
            if not records:
                continue
            clock.start()
            rows = await hop.apply([_incoming(r) for r in records], dedupe=False)
            await publisher.put(Publication(rows))
            await consumer.commit()
            if clock.done + len(records) >= clock.count:
                await publisher.drain()
            clock.add(len(records))
    await publisher.stop()
    pool.terminate()


async def aiokafka_single(settings: Settings, clock: Clock) -> None:
    """Event by event: validate, one transaction with dedupe, publish, commit the offset."""
    pool = await create_pool(settings, service=SPEC.name)
    hop = Hop(pool, settings)
    producer = create_producer(settings, client_id="single")
    await producer.start()
    async with _consumer(settings, "single") as consumer:
        while clock.done < clock.count:
            record = await consumer.getone()
            clock.start()
            await send_each(producer, await hop.apply([_incoming(record)], dedupe=True))
            await consumer.commit()
            clock.add(1)
    await producer.stop()
    pool.terminate()


async def faststream_single(settings: Settings, clock: Clock) -> None:
    """The same in FastStream."""
    await _faststream(settings, clock, batch=False)


async def faststream_batch(settings: Settings, clock: Clock) -> None:
    """FastStream's batches: one transaction and one round of publishing per batch."""
    await _faststream(settings, clock, batch=True)


async def _faststream(settings: Settings, clock: Clock, *, batch: bool) -> None:
    from faststream import AckPolicy  # noqa: PLC0415  only this way needs it
    from faststream.kafka import KafkaBroker, KafkaMessage  # noqa: PLC0415

    pool = await create_pool(settings, service=SPEC.name)
    hop = Hop(pool, settings)
    broker = KafkaBroker(settings.kafka_bootstrap, acks="all", enable_idempotence=True, logger=None)
    producer = create_producer(settings, client_id="faststream")

    async def on_records(records: Sequence[ConsumerRecord]) -> None:
        clock.start()
        await send_each(producer, await hop.apply([_incoming(r) for r in records], dedupe=True))
        clock.add(len(records))

    subscriber: Any
    if batch:
        subscriber = broker.subscriber(
            MESSAGING_EVENTS,
            batch=True,
            max_records=BATCH_RECORDS,
            decoder=_undecoded,
            group_id="inmail-bench-faststream-batch",
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.ACK,
        )
    else:
        subscriber = broker.subscriber(
            MESSAGING_EVENTS,
            decoder=_undecoded,
            group_id="inmail-bench-faststream",
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.ACK,
        )

    @subscriber  # type: ignore[untyped-decorator]
    async def on_message(_: Any, message: KafkaMessage) -> None:
        raw = message.raw_message
        await on_records(raw if isinstance(raw, tuple | list) else [raw])

    await producer.start()
    await broker.start()
    await clock.finished.wait()
    await broker.stop()
    await producer.stop()
    pool.terminate()


async def _undecoded(message: Any) -> Any:
    return message.body


async def faust_single(settings: Settings, clock: Clock) -> None:
    """The same in Faust: an agent that takes one event after the other."""
    import faust  # noqa: PLC0415  only this way needs it

    pool = await create_pool(settings, service=SPEC.name)
    hop = Hop(pool, settings)
    producer = create_producer(settings, client_id="faust")
    await producer.start()
    folder = TemporaryDirectory()  # Faust makes one for its tables in any case, by default where the process began
    app = faust.App(
        "inmail-bench-faust",
        datadir=folder.name,
        broker=f"aiokafka://{settings.kafka_bootstrap}",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        value_serializer="raw",
        key_serializer="raw",
    )
    topic = app.topic(MESSAGING_EVENTS, value_type=bytes, key_type=bytes)

    @app.agent(topic)
    async def on_event(stream: Any) -> None:
        async for event in stream.events():
            clock.start()
            m = event.message
            headers = list(m.headers.items()) if isinstance(m.headers, dict) else list(m.headers or ())
            incoming = incoming_of(m.topic, m.partition, m.offset, int(m.timestamp * 1000), m.key, m.value, headers)
            await send_each(producer, await hop.apply([incoming], dedupe=True))
            clock.add(1)

    await app.start()
    await clock.finished.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.drain_seconds_max):
            await app.stop()
    folder.cleanup()
    await producer.stop()
    pool.terminate()


@contextlib.asynccontextmanager
async def _consumer(settings: Settings, group: str) -> Any:
    consumer = AIOKafkaConsumer(
        MESSAGING_EVENTS,
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=f"inmail-bench-{group}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _batch(consumer: AIOKafkaConsumer) -> list[ConsumerRecord]:
    fetched = await consumer.getmany(timeout_ms=50, max_records=BATCH_RECORDS)
    return [record for records in fetched.values() for record in records]


CONTENDERS: dict[str, Callable[[Settings, Clock], Awaitable[None]]] = {
    "ours": ours,
    "limit": limit,
    "aiokafka_single": aiokafka_single,
    "faststream_single": faststream_single,
    "faust_single": faust_single,
    "faststream_batch": faststream_batch,
}


async def _main(name: str, count: int) -> None:
    clock = Clock(count)
    await CONTENDERS[name](Settings(batch_records_max=BATCH_RECORDS), clock)
    sys.stdout.write(json.dumps({"events": clock.done, "seconds": clock.seconds}) + "\n")


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)  # as the services run, for all alike
    uvloop.run(_main(sys.argv[1], int(sys.argv[2])))
