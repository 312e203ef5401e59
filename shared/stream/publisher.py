"""Publishing: one idempotent producer per process sends committed rows in order, while the next batch is worked on."""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError
from aiokafka.partitioner import murmur2
from prometheus_client import Counter

from shared.events import STRUCTURED_HEADERS, Headers
from shared.postgres import acquire, is_fault
from shared.settings import Settings
from shared.stream.offsets import FenceRejectedError, standing
from shared.stream.outbox import OutboxRow, Publication

logger = logging.getLogger(__name__)

_Record = tuple[bytes | None, bytes | None, Headers]

_BATCH_BYTES_MAX = 900_000  # below the topics' 1 MiB; a dead letter beyond it is a batch of its own


@lru_cache(maxsize=8_192)
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


def create_producer(settings: Settings, *, client_id: str) -> AIOKafkaProducer:
    """A producer that neither loses, doubles nor reorders: idempotent, acknowledged by all replicas."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        max_batch_size=_BATCH_BYTES_MAX,
        max_request_size=_BATCH_BYTES_MAX + 100_000,
        request_timeout_ms=settings.request_timeout_ms,
        linger_ms=0,
    )


class PublisherEndedError(Exception):
    """A fault of the database ended the publisher: a new one has to send what it left."""


class Publisher:
    """Takes publications in the order of their commits. After a failure it takes no more: claim anew and resend."""

    def __init__(self, pool: asyncpg.Pool, settings: Settings, *, consumer: str, fence_rejections: Counter) -> None:
        self._pool = pool
        self._settings = settings
        self._consumer = consumer
        self._fence_rejections = fence_rejections
        self._producer = create_producer(settings, client_id=f"{consumer}-{settings.instance}")
        self._queue: asyncio.Queue[Publication] = asyncio.Queue(settings.outbox_batches_max)
        self._task: asyncio.Task[None] | None = None
        self._sent: list[int] = []

    async def start(self) -> None:
        """Connect to the broker.

        Raises:
            aiokafka.errors.KafkaError: the broker is away.

        """
        await self._producer.start()
        self._task = asyncio.create_task(self._run(), name=f"{self._consumer}-publisher")

    async def put(self, publication: Publication) -> None:
        """Hand rows over; waits while too many are in flight, which holds the next batch back.

        Raises:
            Exception: what ended the publisher.

        """
        if not publication.rows:
            return
        waiting = asyncio.ensure_future(self._queue.put(publication))
        limit = self._settings.request_timeout_ms / 1000
        await asyncio.wait({waiting, self._running}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        self.check()
        if not waiting.done():  # aiokafka's idempotent batches wait for their broker without end
            waiting.cancel()
            raise self._nothing_acknowledged()

    def _nothing_acknowledged(self) -> KafkaTimeoutError:
        return KafkaTimeoutError(
            f"the broker acknowledged nothing for {self._settings.request_timeout_ms / 1000:.0f} s"
        )

    def check(self) -> None:
        """Raise what ended the publisher, if anything did."""
        if not self._running.done():
            return
        error = None if self._running.cancelled() else self._running.exception()
        if error is None or is_fault(error):
            # Not as what it was: a fault of the database is waited for by those who ask again, and this one stays.
            message = f"the publisher ended ({type(error).__name__})"
            raise PublisherEndedError(message) from error
        raise error

    def take_sent(self) -> list[int]:
        """The outbox ids acknowledged since the last call: their rows can be deleted."""
        sent, self._sent = self._sent, []
        return sent

    async def drain(self) -> None:
        """Wait until everything handed over is acknowledged, or the publisher has failed."""
        joined = asyncio.ensure_future(self._queue.join())
        try:
            await asyncio.wait({joined, self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            joined.cancel()

    async def settle(self) -> None:
        """Wait until the broker has everything handed over, for as long as `put` waits.

        Raises:
            Exception: what ended the publisher, or that the broker acknowledges nothing.

        """
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                await self.drain()
        except TimeoutError:
            raise self._nothing_acknowledged() from None
        self.check()

    async def stop(self) -> None:
        """Stop at once; what is not acknowledged stays in the outbox."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._task
        try:
            async with asyncio.timeout(self._settings.drain_seconds_max):
                await self._producer.stop()
        except TimeoutError:
            await self._abandon()

    async def _abandon(self) -> None:
        """End a producer whose `stop` waits for acknowledgements: it would go on sending beside its successor."""
        producer = self._producer  # its private parts, as `stop` has no other way to go on where it was cancelled
        producer._sender.sender_task.cancel()  # noqa: SLF001
        producer._message_accumulator.fail_all(KafkaTimeoutError("given up; the outbox has it"))  # noqa: SLF001
        await producer.client.close()

    @property
    def _running(self) -> asyncio.Task[None]:
        if self._task is None:
            message = "start() the publisher first"
            raise RuntimeError(message)
        return self._task

    async def _run(self) -> None:
        while True:
            publication = await self._queue.get()
            await self._check_claims(publication)
            await self._send(publication.rows)
            self._sent += [row.outbox_id for row in publication.rows]
            self._queue.task_done()

    async def _check_claims(self, publication: Publication) -> None:
        """An owner that was frozen after its commit must not send behind its successor's back.

        A transaction so young that nobody can have taken over since needs no look.
        """
        age_seconds = time.monotonic() - publication.begun_at
        if publication.claims and age_seconds > self._settings.publish_recheck_ms / 1000:
            async with acquire(self._pool) as connection:
                if not await standing(connection, self._consumer, publication.claims):
                    self._fence_rejections.inc()
                    message = f"{self._consumer}: lost its partitions between commit and publish"
                    raise FenceRejectedError(message)

    async def _send(self, rows: Sequence[OutboxRow]) -> None:
        acknowledgements = []
        for (topic, partition), records in (await self._by_partition(rows)).items():
            builder = self._producer.create_batch()
            for key, value, headers in records:
                if builder.append(timestamp=None, key=key, value=value, headers=headers) is None:
                    builder.close()
                    acknowledgements.append(await self._producer.send_batch(builder, topic, partition=partition))
                    builder = self._producer.create_batch()
                    builder.append(timestamp=None, key=key, value=value, headers=headers)
            acknowledgements.append(await self._producer.send_batch(builder, topic, partition=partition))
        await asyncio.gather(*acknowledgements)

    async def _by_partition(self, rows: Sequence[OutboxRow]) -> dict[tuple[str, int], list[_Record]]:
        grouped: dict[tuple[str, int], list[_Record]] = defaultdict(list)
        for row in rows:
            count = len(await self._producer.partitions_for(row.topic))
            headers = repeat(STRUCTURED_HEADERS) if row.headers is None else row.headers
            for record in zip(row.keys, row.payloads, headers, strict=False):
                grouped[row.topic, _hash(record[0] or b"") % count].append(record)
        return grouped
