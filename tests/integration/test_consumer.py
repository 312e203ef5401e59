"""The consumer, the publisher and the service's process on a real broker and a real Postgres."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaTimeoutError
from aiokafka.protocol.fetch import FetchRequest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deploy.local.ports import HOST, free_port
from deploy.local.stack import LocalStack
from deploy.local.variables import POSTGRES_VARIABLE
from deploy.topics import create_topics
from shared.events import ReplyDraftChangedV1, encode
from shared.health import Health
from shared.metrics import Metrics
from shared.postgres import acquire, is_fault
from shared.settings import Settings
from shared.stream import outbox
from shared.stream.consumer import StreamConsumer, consumer_options, hurried_gather_ms
from shared.stream.effects import Effects
from shared.stream.offsets import FenceRejectedError, RetentionPassedError, claim
from shared.stream.outbox import OutboxRow, Publication
from shared.stream.processor import Processor, Read
from shared.stream.publisher import Publisher, PublisherEndedError
from shared.stream.records import AnyIncoming, Position, RawRecord
from shared.stream.service import Resources, ServiceProcess, ServiceSpec
from shared.testing import builders
from shared.testing.databases import Databases
from shared.testing.harness import Harness
from shared.testing.topics import publish, read
from shared.topics import CONTRACT_EVENTS, CONVERSATION_EVENTS, MESSAGING_EVENTS


class Forwarder:
    """Emits one event per event, so that order and repeats can be seen on the other side."""

    def __init__(self, resources: Resources) -> None:
        del resources

    async def prepare(self, batch: Sequence[AnyIncoming]) -> None:
        del batch

    async def handle(self, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects) -> None:
        del tx
        for incoming in batch:
            data = ReplyDraftChangedV1(
                thread_id=incoming.event.subject, thread_version=1, choice=None, at=incoming.event.time
            )
            effects.emit(CONVERSATION_EVENTS, incoming, data, at=incoming.event.time)


class TimedForwarder(Forwarder):
    """Says when it was called last, by the monotonic clock."""

    handled_at = 0.0

    async def handle(self, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects) -> None:
        self.handled_at = time.monotonic()
        await super().handle(tx, batch, effects)


SPEC = ServiceSpec(name="ingestion", reads=(Read(MESSAGING_EVENTS, dedupe=True, upstream=True),), handler=Forwarder)


def settings_for(broker: str, database: str, instance: str = "0") -> Settings:
    return Settings(
        kafka_bootstrap=broker,
        postgres_dsn=database,
        instance=instance,
        batch_records_max=50,
        session_timeout_ms=6_000,
        transaction_timeout_ms=5_000,
        statement_timeout_ms=4_000,
        idle_in_transaction_timeout_ms=3_000,
        retry_seconds_min=0.05,
    )


def publisher_of(harness: Harness, settings: Settings) -> Publisher:
    """A publisher on the harness's tables, not started."""
    resources = harness.resources
    return Publisher(resources.pool, settings, consumer=SPEC.name, fence_rejections=resources.metrics.fence_rejections)


@asynccontextmanager
async def running(settings: Settings, spec: ServiceSpec = SPEC) -> AsyncIterator[ServiceProcess]:
    process = ServiceProcess(spec, settings, Metrics(spec.name), Health(settings.progress_seconds_max))
    task = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        process.stop()
        await task


async def test_every_event_is_forwarded_once_and_in_order(broker: str, database: str) -> None:
    events = [builders.reply(thread_id=f"t{i % 7}", reply_id=f"r{i}") for i in range(300)]
    async with running(settings_for(broker, database)):
        await publish(broker, MESSAGING_EVENTS, events)
        forwarded = await read(broker, CONVERSATION_EVENTS, count=len(events))
    assert len(forwarded) == len(events)
    for thread in {e.subject for e in events}:
        causes = [e.causeid for e in forwarded if e.subject == thread]
        assert causes == [e.id for e in events if e.subject == thread]


async def test_a_stopped_process_leaves_nothing_in_the_outbox(broker: str, database: str) -> None:
    async with running(settings_for(broker, database)):
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        await read(broker, CONVERSATION_EVENTS, count=1)
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT count(*) FROM ingestion.outbox") == 0
    finally:
        await connection.close()


async def test_what_died_between_commit_and_publish_is_sent_by_the_next_owner(broker: str, database: str) -> None:
    first, second = builders.reply(reply_id="r1"), builders.reply(reply_id="r2")
    await publish(broker, MESSAGING_EVENTS, [first])
    (partition, offset) = await position_of_the_only_record(broker)
    dying = await Harness.open(SPEC, database)
    record = RawRecord(
        Position(MESSAGING_EVENTS, partition, offset), datetime.now(UTC), first.subject.encode(), encode(first), ()
    )
    slot = (MESSAGING_EVENTS, partition)
    async with acquire(dying.resources.pool) as connection:
        (held,) = await claim(connection, SPEC.name, {slot: offset})
    held.next_offset = offset
    await connection_set_offset(database, partition, offset)
    await dying.processor.process([record], {slot: held})
    await dying.close()
    async with running(settings_for(broker, database)):
        await publish(broker, MESSAGING_EVENTS, [second])
        forwarded = await read(broker, CONVERSATION_EVENTS, count=2)
    assert [e.causeid for e in forwarded] == [first.id, second.id]


async def test_a_zombie_that_wakes_between_commit_and_publish_sends_nothing(broker: str, database: str) -> None:
    zombie = await Harness.open(SPEC, database)
    event = builders.reply(reply_id="r1")
    settings = settings_for(broker, database)
    publisher = publisher_of(zombie, settings)
    await publisher.start()
    held_back: list[Publication] = []
    handler = TimedForwarder(zombie.resources)
    processor = Processor(
        service=SPEC.name,
        reads=SPEC.reads,
        handler=handler,
        pool=zombie.resources.pool,
        settings=settings,
        metrics=zombie.resources.metrics,
        publish=_keep(held_back),
    )
    record = RawRecord(Position(MESSAGING_EVENTS, 0, 0), datetime.now(UTC), event.subject.encode(), encode(event), ())
    began_at = time.monotonic()
    await processor.process([record], zombie.claims)
    assert began_at <= held_back[0].begun_at <= handler.handled_at, "a freeze during the commit is in its age"
    async with acquire(zombie.resources.pool) as connection:
        await claim(connection, SPEC.name, {(MESSAGING_EVENTS, 0): 0})
    await publisher.put(replace(held_back[0], begun_at=held_back[0].begun_at - 10))
    await publisher.drain()
    with pytest.raises(FenceRejectedError):
        publisher.check()
    assert zombie.resources.metrics.fence_rejections._value.get() == 1
    await publisher.stop()
    await zombie.close()
    consumer = AIOKafkaConsumer(CONVERSATION_EVENTS, bootstrap_servers=broker)
    await consumer.start()
    partitions = sorted(consumer.assignment())
    assert await consumer.beginning_offsets(partitions) == await consumer.end_offsets(partitions)
    await consumer.stop()


async def test_a_second_process_takes_its_share_and_hands_it_back(broker: str, database: str) -> None:
    events = [builders.reply(thread_id=f"t{i % 60}", reply_id=f"r{i}") for i in range(600)]
    async with running(settings_for(broker, database, "0")) as first:
        await publish(broker, MESSAGING_EVENTS, events[:200])
        async with running(settings_for(broker, database, "1")) as second:
            await publish(broker, MESSAGING_EVENTS, events[200:400])
            await read(broker, CONVERSATION_EVENTS, count=400)
            assert second.consumer is not None
        await publish(broker, MESSAGING_EVENTS, events[400:])
        forwarded = await read(broker, CONVERSATION_EVENTS, count=600)
        assert first.metrics.rebalances._value.get() >= 1
    assert {e.causeid for e in forwarded} == {e.id for e in events}


async def test_a_consumer_whose_connection_is_closed_under_it_ends_no_service(broker: str, database: str) -> None:
    async with running(settings_for(broker, database)) as process:
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        await read(broker, CONVERSATION_EVENTS, count=1)
        assert process.consumer is not None
        stop, process.consumer._consumer.stop = process.consumer._consumer.stop, _closed_handle
        await process.consumer._close()
        process.consumer._consumer.stop = stop


async def test_a_process_without_its_partitions_says_that_it_waits(broker: str, database: str) -> None:
    """As when the broker goes away during a rebalance: nothing fails then, and nothing comes."""
    async with running(settings_for(broker, database)) as process:
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        await read(broker, CONVERSATION_EVENTS, count=1)
        assert (process.health.waiting_for, process.health.partitions) == (None, 6)
        assert process.consumer is not None
        await process.consumer.release()
        assert asdict(process.health).items() >= {"waiting_for": "Kafka", "partitions": 0}.items()


async def test_a_topic_made_anew_ends_the_service_before_it_passes_records_over(broker: str, database: str) -> None:
    """As after a loss of the broker's data: the stored position lies beyond all that the new topic holds."""
    first = await Harness.open(SPEC, database)
    slot = (MESSAGING_EVENTS, 0)
    async with acquire(first.resources.pool) as connection:
        await claim(connection, SPEC.name, {slot: 0})
        await connection.execute("UPDATE consumer_offset SET next_offset = 1000")
    await first.close()
    settings = settings_for(broker, database)
    process = ServiceProcess(SPEC, settings, Metrics(SPEC.name), Health(settings.progress_seconds_max))
    got_on_at = process.metrics.progress_timestamp_seconds._value.get()
    with pytest.raises(RetentionPassedError, match=r"beyond the last record.* replay --consumer ingestion"):
        await asyncio.wait_for(process.run(), 60)
    assert process.metrics.progress_timestamp_seconds._value.get() == got_on_at, "it never got on"


async def test_a_spare_member_to_whom_the_group_says_nothing_starts_anew(broker: str, database: str) -> None:
    settings = settings_for(broker, database).model_copy(update={"rebalance_timeout_ms": 10_000})
    async with running(settings) as process:
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        await read(broker, CONVERSATION_EVENTS, count=1)
        first = process.consumer
        assert first is not None
        await first.release()
        first._heard_at -= 60
        async with asyncio.timeout(60):
            while process.consumer is first or process.health.waiting_for is not None:  # noqa: ASYNC110  nothing else tells
                await asyncio.sleep(0.05)
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r2")])
        await read(broker, CONVERSATION_EVENTS, count=2)


async def test_a_partition_taken_back_while_the_database_is_busy_is_not_claimed(broker: str, database: str) -> None:
    kept = (MESSAGING_EVENTS, 0)
    async with running(settings_for(broker, database)) as process, connected(database) as connection:
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        await read(broker, CONVERSATION_EVENTS, count=1)
        before, consumer = await epochs(connection), process.consumer
        assert consumer is not None
        async with connection.transaction():
            await connection.execute("LOCK TABLE ingestion.consumer_offset IN EXCLUSIVE MODE")
            consumer.assigned(set(before))
            await eventually(lambda: process.health.waiting_for == "Postgres")
            await consumer.release()
            consumer.assigned({kept})
        await eventually(lambda: process.health.waiting_for is None)
        assert set(consumer.claims) == {kept}
        after = await epochs(connection)
        assert {slot: after[slot] - before[slot] for slot in before} == {slot: int(slot == kept) for slot in before}


async def test_a_claim_that_is_taken_back_before_its_end_holds_nothing(
    broker: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (MESSAGING_EVENTS, 0)
    waited_for: list[str | None] = []

    async def send_left(consumer: StreamConsumer, *_: object) -> int:
        waited_for.append(consumer._health.waiting_for)
        if len(waited_for) == 1:
            await consumer.release()
            consumer.assigned({kept})
        return 0

    monkeypatch.setattr(StreamConsumer, "_send_left", send_left)
    async with running(settings_for(broker, database)) as process:
        await eventually(lambda: process.health.waiting_for is None)
        assert waited_for == ["Kafka", "Kafka"], "it did not seem ready with what it did not hold"
        assert process.consumer is not None
        assert set(process.consumer.claims) == {kept}


async def test_a_consumer_deaf_to_one_partition_ends_while_others_flow(broker: str, database: str) -> None:
    settings = settings_for(broker, database).model_copy(update={"deaf_seconds_max": 5.0, "sweep_seconds": 0.1})
    async with running(settings) as process:
        await publish(broker, MESSAGING_EVENTS, [builders.reply(thread_id="a", reply_id="r1")])
        (partition, _) = await position_of_the_only_record(broker)
        await read(broker, CONVERSATION_EVENTS, count=1)
        first = process.consumer
        assert first is not None
        # As with partitions whose leader answers and gives nothing; the other threads' records lie in them.
        first._consumer.pause(*(tp for tp in first._consumer.assignment() if tp.partition != partition))
        unheard = [builders.reply(thread_id=thread, reply_id=f"of {thread}") for thread in "bcdefgh"]
        await publish(broker, MESSAGING_EVENTS, unheard)
        count, patience_until = 1, time.monotonic() + 60
        while process.consumer is first:
            assert time.monotonic() < patience_until, "it does not end"
            count += 1
            await publish(broker, MESSAGING_EVENTS, [builders.reply(thread_id="a", reply_id=f"r{count}")])
        forwarded = await read(broker, CONVERSATION_EVENTS, count=count + len(unheard))
    assert {e.id for e in unheard} <= {e.causeid for e in forwarded}


async def test_a_request_in_flight_when_a_service_ends_is_answered(broker: str, database: str) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    def routes(resources: Resources) -> list[Route]:
        async def slow(_: Request) -> JSONResponse:
            entered.set()
            await go_on.wait()
            return JSONResponse(await resources.pool.fetchval("SELECT 1"))

        return [Route("/slow", slow)]

    port = free_port()
    settings = settings_for(broker, database).model_copy(update={"http_port": port})
    process = ServiceProcess(
        replace(SPEC, routes=routes), settings, Metrics(SPEC.name), Health(settings.progress_seconds_max)
    )
    working = asyncio.create_task(process.run())
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=60) as client:
        await eventually(lambda: process.health.waiting_for is None)
        assert (await client.get("/readyz")).status_code == 200
        in_flight = asyncio.create_task(client.get("/slow"))
        await entered.wait()
        assert process.consumer is not None
        async with process.consumer._working:
            process.stop()
            told = await client.get("/readyz")
        assert (told.status_code, told.json()["waiting_for"]) == (503, "its end")
        while await accepts(port):
            pass
        go_on.set()
        answer = await in_flight
    await working
    assert (answer.status_code, answer.json()) == (200, 1)


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await asyncio.sleep(0.05)
    return True


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  nothing else tells
            await asyncio.sleep(0.05)


@asynccontextmanager
async def connected(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


async def epochs(connection: asyncpg.Connection) -> dict[tuple[str, int], int]:
    rows = await connection.fetch("SELECT topic, partition, owner_epoch FROM ingestion.consumer_offset")
    return {(row["topic"], row["partition"]): row["owner_epoch"] for row in rows}


async def test_a_courtesy_without_partitions_is_none(broker: str, database: str) -> None:
    """As when a rebalance takes them in the middle of a sweep."""
    async with running(settings_for(broker, database)) as process:
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        await read(broker, CONVERSATION_EVENTS, count=1)
        assert process.consumer is not None
        held, process.consumer._claims = process.consumer._claims, {}
        await process.consumer._commit_courtesy()
        process.consumer._claims = held


async def test_transactions_of_upstream_are_read_once_committed_and_their_marks_are_no_lag(
    broker: str, database: str
) -> None:
    kept, dropped = builders.reply(reply_id="r1"), builders.reply(reply_id="r2")
    producer = AIOKafkaProducer(bootstrap_servers=broker, transactional_id="upstream")
    await producer.start()
    async with running(settings_for(broker, database)) as process:
        for event, ends in ((dropped, producer.abort_transaction), (kept, producer.commit_transaction)):
            await producer.begin_transaction()
            await producer.send_and_wait(MESSAGING_EVENTS, key=event.subject.encode(), value=encode(event))
            await ends()
        assert [e.causeid for e in await read(broker, CONVERSATION_EVENTS, count=1)] == [kept.id]
        assert process.consumer is not None
        async with process.consumer._working:
            process.consumer._heard_at -= 60
            await process.consumer._sweep()  # would say that it is deaf
        assert time.monotonic() - process.consumer._heard_at < 60, "nor is it when the next record comes"
        lags = [sample.value for sample in next(iter(process.metrics.lag_records.collect())).samples]
        assert (len(lags), sum(lags)) == (6, 0)
        partitions = sorted(process.consumer._consumer.assignment())
        ends = await process.consumer._consumer.end_offsets(partitions)
    await producer.stop()
    connection = await asyncpg.connect(database)
    # Once the broker has deleted marks and records, a position before the marks would lie before all it holds.
    stored = await connection.fetchval("SELECT sum(next_offset) FROM ingestion.consumer_offset")
    assert stored == sum(ends.values()) > 2
    await connection.close()


async def test_a_fault_of_the_database_that_ended_the_publisher_is_not_waited_for(broker: str, database: str) -> None:
    harness = await Harness.open(SPEC, database)
    publisher = publisher_of(harness, settings_for(broker, database))

    async def ended() -> None:
        raise asyncpg.AdminShutdownError("terminating connection")

    publisher._task = asyncio.create_task(ended())
    await asyncio.wait({publisher._task})
    with pytest.raises(PublisherEndedError) as raised:
        publisher.check()
    assert not is_fault(raised.value)
    await publisher.stop()
    await harness.close()


async def test_a_publisher_that_is_given_up_sends_nothing_any_more(broker: str, database: str) -> None:
    """Nor does its `stop` leave a producer behind, which would send for ever beside its successors."""
    harness = await Harness.open(SPEC, database)
    settings = settings_for(broker, database).model_copy(update={"request_timeout_ms": 200, "drain_seconds_max": 0.2})
    publisher = publisher_of(harness, settings)
    await publisher.start()
    producer = publisher._producer
    producer._message_accumulator.drain_by_nodes = lambda **_: ({}, False)  # as with a broker that refuses
    await publisher.put(Publication([OutboxRow(1, CONVERSATION_EVENTS, [b"k"], [b"v"])]))
    with pytest.raises(KafkaTimeoutError):
        await publisher.settle()
    await publisher.stop()
    assert producer._sender.sender_task.done()
    assert not any(connection.connected() for connection in producer.client._conns.values())
    await harness.close()


async def test_what_was_left_behind_is_sent_in_pages_and_in_order(
    broker: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PAGE_ROWS", 2)
    events = [builders.reply(thread_id="t", reply_id=f"r{number}") for number in range(5)]
    dying = await Harness.open(SPEC, database)
    for event in events:
        await dying.feed(MESSAGING_EVENTS, event)
    async with acquire(dying.resources.pool) as connection:
        await connection.execute("DELETE FROM consumer_offset")  # 0 may lie before what the broker still holds
    await dying.close()
    async with running(settings_for(broker, database)):
        forwarded = await read(broker, CONVERSATION_EVENTS, count=len(events))
    assert [e.causeid for e in forwarded] == [e.id for e in events]


async def test_a_service_that_the_group_keeps_waiting_can_be_stopped(
    broker: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the broker goes away while a consumer joins: aiokafka's `start` waits for it without end."""

    async def start(_: AIOKafkaConsumer) -> None:
        asked.set()
        await asyncio.Event().wait()

    asked = asyncio.Event()
    monkeypatch.setattr(AIOKafkaConsumer, "start", start)
    async with asyncio.timeout(30), running(settings_for(broker, database)):
        await asked.wait()


async def test_a_fetch_that_waits_for_a_rebalance_holds_nothing_up(
    broker: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.stream.consumer._FETCH_SECONDS_MAX", 0.1)
    async with running(settings_for(broker, database)) as process:
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        await read(broker, CONVERSATION_EVENTS, count=1)
        assert process.consumer is not None
        turned_at, inner = process.health.turned_at, process.consumer._consumer
        getmany, inner.getmany = inner.getmany, _forever
        async with asyncio.timeout(30):
            while process.health.turned_at == turned_at:  # noqa: ASYNC110  nothing else tells
                await asyncio.sleep(0.05)
        inner.getmany = getmany
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r2")])
        await read(broker, CONVERSATION_EVENTS, count=2)


async def _forever(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


async def test_a_broker_that_acknowledges_nothing_ends_the_wait(broker: str, database: str) -> None:
    harness = await Harness.open(SPEC, database)
    settings = settings_for(broker, database).model_copy(update={"request_timeout_ms": 200, "outbox_batches_max": 1})
    publisher = publisher_of(harness, settings)
    publisher._task = asyncio.create_task(asyncio.sleep(3_600))  # a sender without an answer
    row = OutboxRow(1, CONVERSATION_EVENTS, [b"k"], [b"v"])
    await publisher.put(Publication([row]))
    with pytest.raises(KafkaTimeoutError):
        await publisher.put(Publication([row]))
    await publisher.stop()
    await harness.close()


async def test_a_courtesy_that_never_ends_holds_nothing_up(broker: str, database: str) -> None:
    """As when the broker goes away between two requests of a sweep."""

    async def commit(_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    asked = asyncio.Event()
    settings = settings_for(broker, database).model_copy(update={"request_timeout_ms": 1_000})
    async with running(settings) as process:
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        await read(broker, CONVERSATION_EVENTS, count=1)
        assert process.consumer is not None
        process.consumer._consumer.commit = commit
        await asyncio.wait_for(asked.wait(), 30)
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r2")])
        assert len(await read(broker, CONVERSATION_EVENTS, count=2)) == 2


async def _closed_handle() -> None:
    raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


async def test_the_effective_settings_of_a_consumer_lose_nothing(broker: str, database: str) -> None:
    consumer = AIOKafkaConsumer(
        **consumer_options(settings_for(broker, database), service="ingestion", topics=[MESSAGING_EVENTS])
    )
    other = consumer_options(settings_for(broker, database), service="ingestion", topics=[CONTRACT_EVENTS])
    try:
        assert consumer._enable_auto_commit is False
        assert consumer._auto_offset_reset == "none"
        assert consumer._group_instance_id == "ingestion-0-c3e77dd4"
        assert consumer._group_instance_id != other["group_instance_id"]
    finally:
        await consumer.stop()


async def test_records_that_wait_share_the_batch_of_the_next_that_do_not(broker: str, database: str) -> None:
    batches: list[list[str]] = []

    class Noting(Forwarder):
        async def handle(self, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects) -> None:
            batches.append([i.position.topic for i in batch])
            await super().handle(tx, [i for i in batch if i.position.topic == MESSAGING_EVENTS], effects)

    reads = (Read(CONTRACT_EVENTS, dedupe=True, waits=True), *SPEC.reads)
    settings = settings_for(broker, database).model_copy(update={"batch_wait_ms": 15_000})
    async with running(settings, replace(SPEC, reads=reads, handler=Noting, gather_ms=20)) as process:
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        await read(broker, CONVERSATION_EVENTS, count=1)
        await publish(broker, CONTRACT_EVENTS, [builders.contract_started()])
        await fetched(process, CONTRACT_EVENTS)
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r2")])
        await read(broker, CONVERSATION_EVENTS, count=2)
        process.stop()
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r3")])  # ends the wait
    assert [sorted(batch) for batch in batches[:2]] == [[MESSAGING_EVENTS], [CONTRACT_EVENTS, MESSAGING_EVENTS]]


@pytest.mark.parametrize(("batch_seconds", "gathered_ms"), [(0.0, 5), (0.004, 8), (0.02, 40), (0.03, 60), (9.0, 60)])
def test_a_hurried_path_gathers_as_long_as_batches_take_within_bounds(batch_seconds: float, gathered_ms: int) -> None:
    assert hurried_gather_ms(batch_seconds, gather_ms=60) == gathered_ms


async def test_the_broker_is_asked_to_gather_longer_when_batches_are_slow(
    broker: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []  # by the reader of the test too

    def noting(wait_ms: int, *rest: object, **named: object) -> FetchRequest:
        asked.append(wait_ms)
        return FetchRequest(wait_ms, *rest, **named)

    monkeypatch.setattr(fetcher, "FetchRequest", noting)
    async with running(settings_for(broker, database), replace(SPEC, gather_ms=60, hurried=True)) as process:
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        await read(broker, CONVERSATION_EVENTS, count=1)
        assert process.consumer is not None
        assert 5 in asked  # while nothing is known to be slow
        asked.clear()
        process.consumer._batch_seconds = 10.0
        async with asyncio.timeout(30):
            while 60 not in asked:  # noqa: ASYNC110  nothing else tells
                await asyncio.sleep(0.01)


async def test_what_an_http_request_committed_elsewhere_and_never_sent_is_sent(broker: str, database: str) -> None:
    async with running(settings_for(broker, database)):
        await publish(broker, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
        (event,) = await read(broker, CONVERSATION_EVENTS, count=1)  # the partitions are claimed
        connection = await asyncpg.connect(database)
        await connection.execute(
            "INSERT INTO ingestion.outbox (topic, keys, payloads, created_at) "
            "VALUES ($1, $2, $3, now() - interval '1 hour')",
            *(CONVERSATION_EVENTS, [event.subject.encode()], [encode(replace(event, id="left"))]),
        )
        await connection.close()
        assert len(await read(broker, CONVERSATION_EVENTS, count=2)) == 2


async def fetched(process: ServiceProcess, topic: str) -> None:
    """Wait until the client has a record of the topic in hand."""
    assert process.consumer is not None
    client = process.consumer._consumer
    async with asyncio.timeout(30):
        while not any(client.highwater(tp) for tp in client.assignment() if tp.topic == topic):  # noqa: ASYNC110  nothing else tells
            await asyncio.sleep(0.01)


async def position_of_the_only_record(broker: str) -> tuple[int, int]:
    consumer = AIOKafkaConsumer(MESSAGING_EVENTS, bootstrap_servers=broker, auto_offset_reset="earliest", group_id=None)
    await consumer.start()
    try:
        record = await asyncio.wait_for(consumer.getone(), 30)
        return record.partition, record.offset
    finally:
        await consumer.stop()


async def connection_set_offset(database: str, partition: int, offset: int) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(
            "UPDATE ingestion.consumer_offset SET next_offset = $2 WHERE partition = $1", partition, offset
        )
        await connection.execute("DELETE FROM ingestion.consumer_offset WHERE partition <> $1", partition)
    finally:
        await connection.close()


def _keep(held_back: list[Publication]) -> Callable[[Publication], Awaitable[None]]:
    async def publish_later(publication: Publication) -> None:
        held_back.append(publication)

    return publish_later


async def test_a_broker_away_for_longer_than_any_request_waits_ends_no_service(databases: Databases) -> None:
    dsn = await databases.create()
    async with LocalStack(environ={POSTGRES_VARIABLE: "none"}) as stack:
        kafka = stack.kafka
        assert kafka is not None
        await create_topics(kafka.bootstrap)
        settings = settings_for(kafka.bootstrap, dsn).model_copy(update={"request_timeout_ms": 1_000})
        async with running(settings) as process:
            await publish(kafka.bootstrap, MESSAGING_EVENTS, [builders.reply(reply_id="r1")])
            await read(kafka.bootstrap, CONVERSATION_EVENTS, count=1)
            await kafka.kill()
            async with asyncio.timeout(60):
                while process.health.waiting_for != "Kafka":  # noqa: ASYNC110  nothing else tells
                    await asyncio.sleep(0.05)
            await kafka.start()
            await publish(kafka.bootstrap, MESSAGING_EVENTS, [builders.reply(reply_id="r2")])
            forwarded = await read(kafka.bootstrap, CONVERSATION_EVENTS, count=2)
    assert len({e.id for e in forwarded}) == 2
    await databases.drop(dsn)
