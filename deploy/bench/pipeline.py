"""The whole system: replies per second it sustains, the time from a reply to its notification, and memory."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.bench import load
from deploy.local.system import LocalSystem
from shared.events import decode
from shared.migrate import SCHEMA_OWNERS
from shared.testing import builders
from shared.topics import CONTRACT_EVENTS, MESSAGING_EVENTS, NOTIFICATION_REQUESTS

_POLL_SECONDS = 0.05
_DRAIN_SECONDS_MAX = 300.0
_LATENCY_GRACE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many replies the throughput counts, and at which rate and for how long latency is taken."""

    replies: int = 30_000
    rate_per_s: int = 200
    seconds: int = 30
    warm_up_seconds: int = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured; memory is the peak resident set of each process."""

    replies_per_s: float
    latency_ms: Mapping[str, float]
    memory_mb: Mapping[str, float]


async def measure(system: LocalSystem, sizes: Sizes, say: Callable[[str], None]) -> Result:
    """Send InMails and let them settle; then replies, as fast as they come; then replies at a steady rate."""
    bootstrap = system.stack.kafka_bootstrap
    start = load.start_of(load.now())
    steady = sizes.rate_per_s * (sizes.seconds + sizes.warm_up_seconds)
    await load.publish(bootstrap, CONTRACT_EVENTS, load.encoded(load.contracts(start)))
    await drained(system)
    say(f"sending {sizes.replies + steady:,} InMails")
    await load.publish(bootstrap, MESSAGING_EVENTS, load.encoded(load.inmails(start, sizes.replies + steady)))
    await drained(system)
    say(f"answering {sizes.replies:,} of them as fast as the system takes it")
    replies = load.encoded(load.replies(start, sizes.replies))
    began = time.perf_counter()
    await load.publish(bootstrap, MESSAGING_EVENTS, replies)
    await drained(system)
    replies_per_s = sizes.replies / (time.perf_counter() - began)
    say(f"{replies_per_s:,.0f} replies/s; now {sizes.rate_per_s} a second for {sizes.seconds} s")
    latency_ms = await _latency(bootstrap, sizes, load.replies(start, steady, first=sizes.replies))
    return Result(replies_per_s, latency_ms, _memory(system))


async def drained(system: LocalSystem) -> None:
    """Wait until every record on the broker is applied by all that read it, and none comes of that.

    So outcome, notification, ledger and thread state are there.

    Raises:
        TimeoutError: it took longer than `_DRAIN_SECONDS_MAX`.
    """
    connection = await asyncpg.connect(system.stack.postgres_dsn)
    consumer = AIOKafkaConsumer(bootstrap_servers=system.stack.kafka_bootstrap)
    await consumer.start()
    try:
        async with asyncio.timeout(_DRAIN_SECONDS_MAX):
            # A record may be on its way from one service to the next: two looks in a row must find nothing.
            quiet = 0
            while quiet < 2:
                quiet = quiet + 1 if await _at_rest(connection, consumer) else 0
                await asyncio.sleep(_POLL_SECONDS)
    finally:
        await consumer.stop()
        await connection.close()


async def _at_rest(connection: asyncpg.Connection, consumer: AIOKafkaConsumer) -> bool:
    for service in SCHEMA_OWNERS:
        rows = await connection.fetch(f"SELECT topic, partition, next_offset FROM {service}.consumer_offset")  # noqa: S608  a constant
        stored = {TopicPartition(r["topic"], r["partition"]): r["next_offset"] for r in rows}
        ends = await consumer.end_offsets(list(stored))
        if not stored or any(stored[tp] < end for tp, end in ends.items()):
            return False
    return True


async def _latency(bootstrap: str, sizes: Sizes, replies: Any) -> dict[str, float]:
    """Milliseconds from handing a reply to the broker until a reader has its in-thread notification."""
    sent: dict[str, float] = {}
    seen: dict[str, float] = {}
    reader = AIOKafkaConsumer(NOTIFICATION_REQUESTS, bootstrap_servers=bootstrap, group_id=None)
    await reader.start()
    await reader.seek_to_end()  # before the first reply leaves, or its notification is missed
    reading = asyncio.create_task(_read_notifications(reader, seen))
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        began = time.perf_counter()
        for number, event in enumerate(replies):
            due = began + number / sizes.rate_per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            key, value, headers = builders.record(event)
            sent[event.subject] = time.perf_counter()
            await producer.send(MESSAGING_EVENTS, key=key, value=value, headers=headers)
        deadline = time.perf_counter() + _LATENCY_GRACE_SECONDS
        while len(seen.keys() & sent.keys()) < len(sent) and time.perf_counter() < deadline:  # noqa: ASYNC110  a reader fills it
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        await producer.stop()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await reader.stop()
    missing = sent.keys() - seen.keys()
    if missing:
        message = f"{len(missing)} of {len(sent)} replies had no notification after {_LATENCY_GRACE_SECONDS:.0f} s"
        raise TimeoutError(message)
    counted = list(sent)[sizes.rate_per_s * sizes.warm_up_seconds :]
    values = sorted((seen[thread] - sent[thread]) * 1000 for thread in counted)
    return {"p50": _quantile(values, 0.50), "p99": _quantile(values, 0.99)}


async def _read_notifications(consumer: AIOKafkaConsumer, seen: dict[str, float]) -> None:
    while True:
        fetched = await consumer.getmany(timeout_ms=200)
        now = time.perf_counter()
        for records in fetched.values():
            for r in records:
                event = decode(r.value, key=r.key, headers=tuple(r.headers), topic=r.topic)
                seen.setdefault(getattr(event.data, "thread_id", None) or "", now)


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _memory(system: LocalSystem) -> dict[str, float]:
    peaks = {name: child.peak_rss_bytes for name, child in system.stack.supervisor.children.items()}
    for name, server in (("kafka", system.stack.kafka), ("postgres", system.stack.postgres)):
        if server is not None:
            peaks[name] = server.process.peak_rss_bytes()
    return {name: round(peak / 1e6, 1) for name, peak in peaks.items()}
