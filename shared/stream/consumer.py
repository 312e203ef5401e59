"""The consumer: a small state machine that claims what the group assigns, and works it batch by batch.

assigned -> claim (epoch + 1, send what the last owner left, seek) -> poll -> process -> publish -> poll ...
revoked  -> the batch in hand ends, then the claims are dropped
fenced, publisher failed, deaf -> `run` raises; the service opens a new consumer and claims anew
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from zlib import crc32

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import ConsumerRecord

from shared.health import Health
from shared.metrics import Metrics
from shared.postgres import acquire, is_fault, retry_until, transaction
from shared.settings import Settings
from shared.stream import outbox
from shared.stream.header_names import take_any_header_name
from shared.stream.offsets import LONG_AGO, Claim, check_ends, claim
from shared.stream.offsets import TopicPartition as Slot
from shared.stream.outbox import Publication
from shared.stream.processor import NoneSucceedsError, Processor, Read
from shared.stream.publisher import Publisher
from shared.stream.records import Position, RawRecord

logger = logging.getLogger(__name__)

_FETCH_BYTES_MAX = 262_144
_GATHERED_BYTES = 196_608  # when so much has come the broker gathers no longer
_GATHERED_BATCHES = 2  # for a path in a hurry: a batch takes a third of the time, whatever the machine and its load
_GATHER_MS_MIN = 5
_NEWEST_SHARE = 0.2  # of the last batch in what a batch takes
_PURGE_EVERY_SWEEPS = 60
_SUCCESS = "a record that succeeds"
_FETCH_SECONDS_MAX = 5.0  # aiokafka's, which has a limit of its own, waits for the end of a rebalance without one


class DeafConsumerError(Exception):
    """Records wait on the broker, and none has come for too long."""


def consumer_options(
    settings: Settings, *, service: str, topics: Sequence[str], gather_ms: int = 0
) -> dict[str, object]:
    """The effective options of every consumer; the defaults of two of them would lose events.

    The broker, not the loop, gathers what makes a batch: aiokafka asks for nothing new while it holds records. A pause
    in the loop would let both age.
    """
    return {
        "bootstrap_servers": settings.kafka_bootstrap,
        "group_id": f"inmail-{service}",
        # With the topics: a static member that comes back gets its old partitions, and none of a topic new to it.
        "group_instance_id": f"{service}-{settings.instance}-{crc32(' '.join(sorted(topics)).encode()):08x}",
        "client_id": f"{service}-{settings.instance}",
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "partition_assignment_strategy": (RangePartitionAssignor,),
        "session_timeout_ms": settings.session_timeout_ms,
        "heartbeat_interval_ms": settings.heartbeat_interval_ms,
        "rebalance_timeout_ms": settings.rebalance_timeout_ms,
        "request_timeout_ms": settings.request_timeout_ms,
        # A spare member polls nothing, and aiokafka would let it join no more; the watchdog sees to loops that stand.
        "max_poll_interval_ms": 2**31 - 1,
        "isolation_level": "read_committed",
        "max_partition_fetch_bytes": _FETCH_BYTES_MAX,
        "fetch_max_wait_ms": gather_ms or settings.batch_wait_ms,
        "fetch_min_bytes": _GATHERED_BYTES if gather_ms else 1,
    }


def hurried_gather_ms(batch_seconds: float, *, gather_ms: int) -> int:
    """How long to gather where somebody waits: the slower a batch is, the longer, so that load makes batches larger.

    A batch's cost hardly depends on its size. With a fixed time an idle machine waits for nothing, and a busy one is
    kept busy by batches of a few records.
    """
    return max(_GATHER_MS_MIN, min(gather_ms, round(1000 * _GATHERED_BATCHES * batch_seconds)))


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Lets go and notes what happened: exceptions in these callbacks are swallowed, so no claim depends on them."""

    def __init__(self, consumer: "StreamConsumer") -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        del revoked  # eager assignors take everything
        await self._consumer.release()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._consumer.assigned({(tp.topic, tp.partition) for tp in assigned})


class StreamConsumer:
    """One member of a service's consumer group."""

    def __init__(
        self,
        *,
        service: str,
        reads: Sequence[Read],
        processor: Processor,
        publisher: Publisher,
        pool: asyncpg.Pool,
        settings: Settings,
        metrics: Metrics,
        health: Health,
        gather_ms: int = 0,
        hurried: bool = False,
    ) -> None:
        self._service = service
        self._hurried_ms_max = gather_ms if hurried else 0
        self._batch_seconds = 0.0
        self._health = health
        self._topics = [read.topic for read in reads]
        self._waiting_topics = {read.topic for read in reads if read.waits}
        self._processor = processor
        self._publisher = publisher
        self._pool = pool
        self._settings = settings
        self._metrics = metrics
        options = consumer_options(settings, service=service, topics=self._topics, gather_ms=gather_ms)
        take_any_header_name()
        self._consumer = AIOKafkaConsumer(**options)
        self._wanted: set[Slot] | None = None
        self._claims: dict[Slot, Claim] = {}
        self._waiting: list[RawRecord] = []
        self._waiting_since = 0.0
        self._working = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._heard_at = time.monotonic()
        self._standing: dict[tuple[Slot, int], float] = {}
        self._level_at: dict[Slot, datetime] = {}
        self._swept_at = 0.0
        self._sweeps = 0
        self._forgetting = False

    @property
    def claims(self) -> Mapping[Slot, Claim]:
        """The partitions this process holds."""
        return self._claims

    # Called by the rebalance listener

    def assigned(self, slots: set[Slot]) -> None:
        """Note the group's decision; the loop claims."""
        self._wanted = slots
        self._metrics.rebalances.inc()

    async def release(self) -> None:
        """Let the batch in hand end, and hold nothing any more."""
        self._wanted = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds_max), self._working:
                await self._publisher.drain()
        self._claims, self._waiting = {}, []
        self._heard_at = time.monotonic()
        self._health.waiting_for, self._health.partitions = "Kafka", 0  # for the group's next word

    # The loop

    def stop(self) -> None:
        """Ask `run` to end after the batch in hand."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`.

        Raises:
            RetentionPassedError: end.
            FenceRejectedError, DeafConsumerError, PublisherEndedError, KafkaError: start a new consumer.
            Exception: a fault of the database (`is_fault`), while the service stops: likewise.

        """
        self._consumer.subscribe(self._topics, listener=_Listener(self))
        try:
            await self._start()
            while not self._stopping.is_set():
                self._publisher.check()
                self._health.turned()
                await self._turn()
                if self._health.waiting_for is None:
                    self._metrics.progress_timestamp_seconds.set_to_current_time()
            await self._finish()
        finally:
            await self._close()

    async def _start(self) -> None:
        """Join the group: for as long as its members take, and in vain where the broker goes away meanwhile."""
        started = asyncio.ensure_future(self._consumer.start())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while not (started.done() or stopping.done()):
                self._health.turned()
                self._check_silence()
                await asyncio.wait({started, stopping}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                started.result()
        finally:
            for task in (started, stopping):
                task.cancel()
            await asyncio.gather(started, stopping, return_exceptions=True)

    async def _close(self) -> None:
        """Close the consumer whatever state it is in.

        With the broker away, aiokafka's `stop` raises the CancelledError of its own tasks, which is no request to end:
        first of the heartbeat, then of a fetch. Each call gets further; the connections are left to the last step.
        """
        # Private names, as `stop` has no other way to go on where it stopped.
        for step in (self._consumer.stop, self._consumer.stop, self._consumer._client.close):  # noqa: SLF001
            self._consumer._closed = False  # noqa: SLF001
            try:
                async with asyncio.timeout(self._settings.drain_seconds_max):
                    await step()
            except asyncio.CancelledError:
                this = asyncio.current_task()
                if this is not None and this.cancelling():
                    raise
            except (KafkaError, OSError, RuntimeError) as error:  # uvloop's for a closed handle
                logger.warning("the old consumer did not close cleanly: %s", type(error).__name__)
            else:
                break
        self._consumer._closed = True  # noqa: SLF001

    async def _turn(self) -> None:
        if self._wanted is not None:
            await self._with_patience(self._claim)
        if not self._claims or self._consumer._subscription.reassignment_in_progress:  # noqa: SLF001
            await self._stand_by()
            return
        records = await self._fetch()
        async with self._working:
            if records:
                began = time.monotonic()
                await self._with_patience(lambda: self._process(records))
                self._heard_at = time.monotonic()  # what took long is no silence
                self._batch_seconds += _NEWEST_SHARE * (self._heard_at - began - self._batch_seconds)
            if time.monotonic() - self._swept_at >= self._settings.sweep_seconds:
                await self._with_patience(self._sweep)
                self._swept_at = time.monotonic()

    async def _stand_by(self) -> None:
        """Hold nothing, as a spare member or between two words of the group; only a fetch would show its errors."""
        self._consumer._coordinator.check_errors()  # noqa: SLF001
        if self._health.waiting_for == "Kafka":
            self._check_silence()
        await asyncio.sleep(self._settings.batch_wait_ms / 1000)

    def _check_silence(self) -> None:
        silent_seconds_max = 2 * self._settings.rebalance_timeout_ms / 1000
        if time.monotonic() - self._heard_at > silent_seconds_max:
            message = f"the group has assigned nothing for {silent_seconds_max:.0f} s"
            raise DeafConsumerError(message)

    async def _fetch(self) -> list[RawRecord]:
        """Give what is to be worked now: what waits for company comes with the first record that does not, or late.

        All is fetched at once, and what waits is kept here: aiokafka asks for nothing new while it holds records.
        """
        settings = self._settings
        if self._hurried_ms_max:
            # A private name, for the option is read once; each request to the broker asks it anew.
            self._consumer._fetcher._fetch_max_wait_ms = hurried_gather_ms(  # noqa: SLF001
                self._batch_seconds, gather_ms=self._hurried_ms_max
            )
        wait_ms = settings.batch_wait_ms
        if self._waiting:
            wait_ms = max(0, wait_ms - int((time.monotonic() - self._waiting_since) * 1000))
        slots = [TopicPartition(*slot) for slot in self._claims]
        fetched = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_ms / 1000 + _FETCH_SECONDS_MAX):
                fetched = await self._consumer.getmany(
                    *slots, timeout_ms=wait_ms, max_records=settings.batch_records_max
                )
        now = time.monotonic()
        if fetched:
            self._heard_at = now
            if not self._waiting:
                self._waiting_since = now
            self._waiting += _in_order(fetched)
        if (
            any(slot.topic not in self._waiting_topics for slot in fetched)
            or len(self._waiting) >= settings.batch_records_max
            or now - self._waiting_since >= settings.batch_wait_ms / 1000
        ):
            records, self._waiting = self._waiting, []
            return records
        return []

    async def _process(self, records: list[RawRecord]) -> None:
        """Apply records, in lanes of their own partitions: equal numbers of co-read topics stay together."""
        held = [r for r in records if (r.position.topic, r.position.partition) in self._claims]
        self._processor.sent(self._publisher.take_sent())
        lanes = max(1, min(self._settings.lanes, len(held) // self._settings.lane_records_min))
        split = [[r for r in held if r.position.partition % lanes == lane] for lane in range(lanes)]
        done = await asyncio.gather(
            *(self._processor.process(lane, self._claims) for lane in split if lane), return_exceptions=True
        )
        for result in done:
            if isinstance(result, BaseException):
                raise result

    async def _claim(self) -> None:
        """Take the partitions over, send what their last owner left, and start where it stopped.

        The group may take them back while the database is busy: claimed even so, they would be fenced from their owner.
        """
        slots = self._wanted
        if slots is None:
            self._health.waiting_for = "Kafka"
            return
        partitions = [TopicPartition(*slot) for slot in sorted(slots)]
        self._claims, self._waiting = {}, []
        self._metrics.forget_partitions()
        if not partitions:
            self._health.waiting_for, self._health.partitions = None, 0  # a spare member, ready to take over
            self._wanted = None
            return
        beginnings = await self._consumer.beginning_offsets(partitions)
        if self._wanted is not slots:
            return
        async with transaction(self._pool) as connection:
            claims = await claim(
                connection, self._service, {(tp.topic, tp.partition): o for tp, o in beginnings.items()}
            )
        ends = await self._consumer.end_offsets(partitions)
        check_ends(self._service, claims, {(tp.topic, tp.partition): offset for tp, offset in ends.items()})
        sent_again = await self._send_left(slots, claims)
        if self._wanted is not slots:
            return
        self._wanted = None
        for held in claims:
            self._consumer.seek(TopicPartition(*held.slot), held.next_offset)
        self._processor.claimed(slots)
        self._claims = {held.slot: held for held in claims}
        # How old a backlog is that nobody has read from is not known: its age counts from here.
        self._level_at = {held.slot: datetime.now(UTC) for held in claims if held.newest_timestamp == LONG_AGO}
        self._listen_anew()
        self._health.waiting_for, self._health.partitions = None, len(claims)
        logger.info("claimed %d partitions; %d outbox rows sent again", len(claims), sent_again)

    async def _send_left(self, slots: set[Slot], claims: Sequence[Claim]) -> int:
        """Send what was left behind, in pages, and wait for the broker: while it takes nothing, a batch adds to it."""
        count = after = 0
        while True:
            async with acquire(self._pool) as connection:
                left = await outbox.left_behind(connection, slots, unsourced=(self._topics[0], 0) in slots, after=after)
            if not left:
                break
            await self._publisher.put(Publication(left, claims))
            count, after = count + len(left), left[-1].outbox_id
        if count:
            await self._publisher.settle()
        return count

    async def _sweep(self) -> None:
        """Once in a while: gauges, expiry, acknowledged rows, a courtesy to lag tools, housekeeping."""
        self._sweeps += 1
        partitions = [TopicPartition(*slot) for slot in self._claims]
        now = datetime.now(UTC)
        ends = await self._consumer.end_offsets(partitions)
        reached = {slot: await self._reached(slot, held) for slot, held in self._claims.items()}
        lags = {slot: ends[TopicPartition(*slot)] - offset for slot, offset in reached.items()}
        self._level_at |= {slot: now for slot, lag in lags.items() if not lag}
        for (topic, partition), lag in lags.items():
            self._metrics.lag_records.labels(topic, str(partition)).set(lag)
        # What waits came after the last record worked, and after the moment when nothing waited: on a quiet partition
        # the first alone would make a record of this second look as old as the quiet.
        behind = [
            (now - max(self._claims[slot].newest_timestamp, self._level_at.get(slot, LONG_AGO))).total_seconds()
            for slot, lag in lags.items()
            if lag
        ]
        self._metrics.lag_seconds.set(max(behind, default=0.0))
        self._check_hearing(lags, reached)
        self._processor.sent(self._publisher.take_sent())
        await self._processor.sweep(self._claims, {slot: now for slot, lag in lags.items() if not lag}, reached)
        await self._send_unsourced()
        await self._observe_tables()
        await self._commit_courtesy()
        if self._forgetting or self._sweeps % _PURGE_EVERY_SWEEPS == 0:
            self._forgetting = await self._processor.forget_expired()

    def _check_hearing(self, lags: Mapping[Slot, int], reached: Mapping[Slot, int]) -> None:
        """End a consumer that does not hear what waits, be it of one partition: other brokers' records hide that."""
        now = time.monotonic()
        if not any(lags.values()):
            self._heard_at = now  # there was nothing to hear
        fetched = self._consumer._fetcher._records  # noqa: SLF001  heard, and waiting for slow batches of others
        self._standing = {
            (slot, reached[slot]): self._standing.get((slot, reached[slot]), now)
            for slot, lag in lags.items()
            if lag and TopicPartition(*slot) not in fetched
        }
        if now - min([self._heard_at, *self._standing.values()]) > self._settings.deaf_seconds_max:
            waiting = ", ".join(f"{topic}[{number}]: {lag}" for (topic, number), lag in lags.items() if lag)
            message = f"none came for {self._settings.deaf_seconds_max:.0f} s of records that wait ({waiting})"
            raise DeafConsumerError(message)

    def _listen_anew(self) -> None:
        self._heard_at, self._standing = time.monotonic(), {}

    async def _reached(self, slot: Slot, held: Claim) -> int:
        """Up to where a partition is worked: behind a transaction's marker, which is no record, where none waits."""
        if any((r.position.topic, r.position.partition) == slot for r in self._waiting):
            return held.next_offset
        with contextlib.suppress(IllegalStateError):  # a rebalance has taken it meanwhile
            position: int = await self._consumer.position(TopicPartition(*slot))
            return max(held.next_offset, position)
        return held.next_offset

    async def _send_unsourced(self) -> None:
        """Send what another process committed for an HTTP request and did not live to send."""
        if (self._topics[0], 0) in self._claims:
            async with acquire(self._pool) as connection:
                left = await outbox.left_behind(
                    connection, (), unsourced=True, age_seconds_min=self._settings.session_timeout_ms / 1000
                )
            await self._publisher.put(Publication(left))

    async def _observe_tables(self) -> None:
        async with acquire(self._pool) as connection:
            records, age_seconds = await outbox.backlog(connection)
            parked = await connection.fetchval("SELECT count(*) FROM parked")
        self._metrics.outbox_records.set(records)
        self._metrics.outbox_age_seconds.set(age_seconds)
        self._metrics.parked_records.set(parked)
        self._metrics.observe_pool(self._pool.get_size(), self._pool.get_idle_size())

    async def _commit_courtesy(self) -> None:
        """Kafka's committed offsets are for lag tools only; Postgres is the truth.

        With a limit, for aiokafka looks for a coordinator as long as there is none: with the broker away, for ever.
        """
        offsets = {TopicPartition(*slot): held.next_offset for slot, held in self._claims.items()}
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                if offsets:  # a rebalance may have taken all meanwhile
                    await self._consumer.commit(offsets)

    async def _with_patience(self, step: Callable[[], Awaitable[None]]) -> None:
        """Try again while the database is away: the records stay in hand and the group keeps its member."""

        async def attempt() -> None:
            self._health.turned()  # alive, and a restart would not help; but it is not getting on
            try:
                await step()
            except Exception as error:
                if _is_waited_for(error):
                    self._health.waiting_for = "Postgres" if is_fault(error) else _SUCCESS
                    self._listen_anew()  # nobody listens meanwhile
                raise

        await retry_until(
            attempt,
            what=lambda error: "Postgres" if is_fault(error) else _SUCCESS,
            settings=self._settings,
            retriable=_is_waited_for,
            stopping=self._stopping.is_set,
        )
        if self._health.waiting_for in {"Postgres", _SUCCESS}:
            self._health.waiting_for = None

    async def _finish(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds_max):
                await self._publisher.drain()
        self._processor.sent(self._publisher.take_sent())
        with contextlib.suppress(Exception):
            await self._processor.sweep(self._claims, {})
            await self._commit_courtesy()


def _is_waited_for(error: BaseException) -> bool:
    return is_fault(error) or isinstance(error, NoneSucceedsError)


def _in_order(fetched: Mapping[TopicPartition, list[ConsumerRecord]]) -> list[RawRecord]:
    """Records of all partitions, each partition's in its order."""
    return [
        RawRecord(
            Position(r.topic, r.partition, r.offset),
            datetime.fromtimestamp(r.timestamp / 1000, UTC),
            r.key,
            r.value,
            tuple(r.headers),
        )
        for records in fetched.values()
        for r in records
    ]
