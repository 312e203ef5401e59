"""The processor: one batch, one Postgres transaction; fence, inbox, effects, dead letters, outbox, commit."""

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Protocol

import asyncpg

from shared.events import InvalidRecordError, content_hash
from shared.metrics import Metrics
from shared.postgres import acquire, is_fault, transaction
from shared.settings import Settings
from shared.stream import dead_letters, inbox, outbox, parking
from shared.stream.effects import DeadLetter, Effects
from shared.stream.inbox import BatchCutError, Candidate
from shared.stream.offsets import LONG_AGO, Claim, FenceRejectedError, Move, TopicPartition, fence
from shared.stream.outbox import OutboxRow, Publication
from shared.stream.records import AnyIncoming, Decoded, Incoming, Position, RawRecord, Rejected, decoded
from shared.topics import TOPICS
from shared.topics import dead_letters as dead_letter_topic

logger = logging.getLogger(__name__)

_DELETE_ROWS_MIN = 100


@dataclass(frozen=True, slots=True)
class Read:
    """How a service reads a topic.

    `dedupe`: the kit's inbox drops repeats; without it the topic's writer numbers its keys and the handler does.
    `upstream`: written outside this system, so times are held against the broker's clock (R22).
    `owns_dead_letters`: what no reader can take is this service's dead letter; otherwise another reader's.
    `waits`: alone its records change nothing that anybody waits for, so they wait a while (`batch_wait_ms`) for records
    of another topic, to share a transaction with them.
    """

    topic: str
    dedupe: bool
    upstream: bool = False
    owns_dead_letters: bool = True
    waits: bool = False


class Handler(Protocol):
    """What a service does with a batch of events."""

    async def prepare(self, batch: Sequence[AnyIncoming]) -> None:
        """Do slow work that needs no transaction. May be called again for the same records."""

    async def handle(self, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects) -> None:
        """Apply the batch to the service's tables and say in `effects` what else it does. All or nothing."""


Tidy = Callable[[asyncpg.Connection], Awaitable[bool]]
"""Deletes, once in a while and in a bounded step, what a service keeps for a time only."""


@dataclass(slots=True)
class Batch:
    """Decoded records in order of arrival, per partition as on the broker."""

    items: Sequence[Decoded]
    moves: list[Move]
    clocks: dict[TopicPartition, datetime] = field(default_factory=dict)
    begun_at: float = field(default_factory=time.monotonic)
    """Not after its transaction began, by the monotonic clock."""


@dataclass(slots=True)
class Outcome:
    """What a transaction has done: rows to publish, and what it counted."""

    effects: Effects
    rows: list[OutboxRow]
    dead: list[DeadLetter]
    results: Counter[tuple[str, str, str]]


class NoneSucceedsError(Exception):
    """So many records in a row could not be applied that the fault is ours: they wait for its cure."""


class _RolledBackError(Exception):
    """Ends a dry run's transaction."""


class Processor:
    """Applies records of the partitions that this process holds. Knows nothing of the broker."""

    def __init__(
        self,
        *,
        service: str,
        reads: Sequence[Read],
        handler: Handler,
        pool: asyncpg.Pool,
        settings: Settings,
        metrics: Metrics,
        publish: Callable[[Publication], Awaitable[None]],
        tidy: Tidy | None = None,
    ) -> None:
        self._service = service
        self._reads = {read.topic: read for read in reads}
        self._handler = handler
        self._pool = pool
        self._settings = settings
        self._metrics = metrics
        self._publish = publish
        self._tidy = tidy
        self._next_expiry: dict[TopicPartition, datetime] = {}
        self._sent: list[int] = []
        self._level: frozenset[TopicPartition] = frozenset()
        self._any_dead: bool | None = None
        self._failed_in_a_row = 0
        for read in reads:
            metrics.expect(read.topic, TOPICS[read.topic].types)

    def sent(self, outbox_ids: Sequence[int]) -> None:
        """Say which outbox rows the broker has; a later transaction deletes them."""
        self._sent += outbox_ids

    async def process(self, records: Sequence[RawRecord], claims: Mapping[TopicPartition, Claim]) -> list[Outcome]:
        """Apply records exactly once and hand what they publish to the publisher. Moves the claims.

        Records below a claim's position are left out, so a call that failed half-way can be repeated.

        Raises:
            FenceRejectedError: another process owns one of the partitions; nothing of its transaction stands.
            NoneSucceedsError: too many records in a row have failed: call again.
            Exception: a fault of the database (`shared.postgres.is_fault`): call again.

        """
        items = [
            decoded(r)
            for r in records
            if r.position.offset >= claims[r.position.topic, r.position.partition].next_offset
        ]
        return await self._attempt(items, claims) if items else []

    async def sweep(
        self,
        claims: Mapping[TopicPartition, Claim],
        clocks: Mapping[TopicPartition, datetime],
        reached: Mapping[TopicPartition, int] = {},
    ) -> None:
        """Without new records: expire what is parked, delete what was sent. Partitions with no lag have a clock.

        What was `reached` behind the last record are marks of transactions: a position before those would be lost, to
        all appearances, once the broker has deleted them.
        """
        self._level = frozenset(clocks)
        moves = [Move(c, reached.get(slot, c.next_offset), c.newest_timestamp) for slot, c in claims.items()]
        if moves and (clocks or self._sent):
            await self._commit(Batch([], moves, self._held_back(clocks, claims)))

    @property
    def topics(self) -> frozenset[str]:
        """The topics whose records it can process."""
        return frozenset(self._reads)

    async def dry_run(self, records: Sequence[RawRecord]) -> Outcome:
        """What records would do, without a trace: the transaction is rolled back."""
        batch = Batch([decoded(r) for r in records], [])
        await self._handler.prepare([d for d in batch.items if isinstance(d, Incoming)])
        async with acquire(self._pool) as connection:
            with suppress(_RolledBackError):
                async with connection.transaction():
                    outcome = await self._apply(connection, batch)
                    raise _RolledBackError
        return outcome

    def claimed(self, slots: Iterable[TopicPartition]) -> None:
        """Say that partitions were taken over: what their last owner parked may expire at any time."""
        self._level, self._any_dead = frozenset(), None
        self._ask_again(slots)

    def _ask_again(self, slots: Iterable[TopicPartition]) -> None:
        for slot in slots:
            self._next_expiry.pop(slot, None)

    async def forget_expired(self) -> bool:
        """Housekeeping of the inbox and of the service, one bounded step; tell whether there may be more to do."""
        before = datetime.now(UTC).date()
        async with acquire(self._pool) as connection:
            more = await inbox.purge(connection, before)
            return (self._tidy is not None and await self._tidy(connection)) or more

    # Attempts

    async def _attempt(self, items: Sequence[Decoded], claims: Mapping[TopicPartition, Claim]) -> list[Outcome]:
        """One transaction; after a failure of the data, halves, down to the record that fails alone."""
        outcomes: list[Outcome] = []
        waiting = [(items, 1)]
        while waiting:
            part, attempt = waiting.pop()
            batch = self._batch(part, claims)
            try:
                outcome = await self._transact(batch)
            except FenceRejectedError:
                raise
            except BatchCutError as cut:
                waiting += _halves(
                    part, next(n for n, item in enumerate(part) if _record(item).position == cut.position)
                )
            except Exception as error:
                if is_fault(error):
                    raise
                self._warn(part, error, attempt)
                if len(part) > 1:
                    waiting += _halves(part, len(part) // 2)
                elif attempt < self._settings.attempts_max:
                    waiting.append((part, attempt + 1))
                else:
                    self._blame(error)
                    poison = _poison(part[0], f"failed {attempt} times alone with {type(error).__name__}")
                    outcomes.append(await self._commit(self._batch([poison], claims)))
            else:
                self._failed_in_a_row = 0
                await self._hand_over(batch, outcome)
                outcomes.append(outcome)
        return outcomes

    def _blame(self, error: Exception) -> None:
        """Let a record be dead, unless so many were before it, and none alive, that no record can be to blame."""
        limit = self._settings.failed_in_a_row_max
        if self._failed_in_a_row >= limit:
            message = f"{limit} records in a row failed, at last with {type(error).__name__}"
            raise NoneSucceedsError(message) from error
        self._failed_in_a_row += 1

    def _warn(self, part: Sequence[Decoded], error: Exception, attempt: int) -> None:
        logger.warning(
            "%d records failed with %s, attempt %d",
            len(part),
            type(error).__name__,
            attempt,
            exc_info=len(part) == 1,
        )

    # One transaction

    async def _commit(self, batch: Batch) -> Outcome:
        outcome = await self._transact(batch)
        await self._hand_over(batch, outcome)
        return outcome

    async def _transact(self, batch: Batch) -> Outcome:
        started = time.perf_counter()
        sent: list[int] = []
        if not batch.items or len(self._sent) >= _DELETE_ROWS_MIN:  # small batches leave it to the sweep
            sent, self._sent = self._sent, []
        try:
            await self._handler.prepare([d for d in batch.items if isinstance(d, Incoming)])
            async with transaction(self._pool) as connection:
                await fence(connection, self._service, batch.moves)
                await outbox.delete_sent(connection, sent)
                outcome = await self._apply(connection, batch)
        except BaseException as error:
            self._sent = sent + self._sent
            self._ask_again(batch.clocks)  # what had expired stands again
            if isinstance(error, FenceRejectedError):
                self._metrics.fence_rejections.inc()
            raise
        for move in batch.moves:
            move.claim.next_offset = move.next_offset
            move.claim.newest_timestamp = move.newest_timestamp
        self._observe(batch, outcome, time.perf_counter() - started)
        return outcome

    async def _hand_over(self, batch: Batch, outcome: Outcome) -> None:
        """Publish what has been committed: a failure here is the broker's, and no record is to blame."""
        await self._publish(Publication(outcome.rows, [move.claim for move in batch.moves], batch.begun_at))

    async def _apply(self, tx: asyncpg.Connection, batch: Batch) -> Outcome:
        effects = Effects(self._service)
        dead: list[DeadLetter] = []
        expired = await self._expire(tx, batch.clocks)
        for incoming in expired:
            if isinstance(incoming, Incoming):
                effects.dead(
                    incoming, "ORPHANED", f"the fact it needs did not come in {self._settings.parked_seconds_max:.0f} s"
                )
        rejected = [item for item in batch.items if isinstance(item, Rejected)]
        _cut_after_death(batch.items if rejected else ())
        rejected += [item for item in expired if isinstance(item, Rejected)]
        await self._revive(tx, batch.items)
        living = await self._living(tx, [i for i in batch.items if isinstance(i, Incoming)], effects)
        accepted = await self._screen(tx, living, effects, dead)
        if accepted:
            await self._handler.handle(tx, accepted, effects)
        await self._settle(tx, effects, dead, expired)
        dead += [_dead_of(r) for r in rejected]
        # Remembered in any case, for what a repeat or a redriven one is; published by the topic's one owner.
        new = await dead_letters.store_dead_letters(tx, dead)
        self._saw_dead(any_dead=bool(dead))
        # But what this service alone cannot do is nobody else's letter.
        owned = {topic for topic, read in self._reads.items() if read.owns_dead_letters}
        kept = [d for d in new if d.record.position.topic in owned or d.reason == "PROCESSING_FAILED"]
        self._mark_unpublished(effects, {d.record.position for d in dead} - {d.record.position for d in kept})
        rows = await outbox.store_outgoing(tx, effects.outgoing)
        rows += await self._store_dead(tx, kept)
        return Outcome(effects, rows, kept, self._results(batch, effects, kept))

    async def _living(
        self, tx: asyncpg.Connection, incomings: Sequence[AnyIncoming], effects: Effects
    ) -> Sequence[AnyIncoming]:
        """Leave out repeats of dead letters, as `inmail replay` brings them; where the inbox screens, it knows them."""
        if self._any_dead is None:
            self._saw_dead(any_dead=await dead_letters.any_known(tx))
        asked = [i for i in incomings if not (self._reads[i.position.topic].dedupe or i.redriven)]
        if not self._any_dead or not asked:
            return incomings
        identities = {i.position: _identity_of(i) for i in asked}
        dead = await dead_letters.known_of(tx, list(identities.values()))
        living = [i for i in incomings if identities.get(i.position) not in dead]
        for incoming in asked if dead else ():
            if identities[incoming.position] in dead:
                effects.duplicate(incoming)
        return living

    def _saw_dead(self, *, any_dead: bool) -> None:
        """Remember that there are dead letters; that there are none is older news than that another transaction's."""
        self._any_dead = any_dead or bool(self._any_dead)

    async def _screen(
        self, tx: asyncpg.Connection, incomings: Sequence[AnyIncoming], effects: Effects, dead: list[DeadLetter]
    ) -> list[AnyIncoming]:
        """The events that take effect now, in order of arrival."""
        screened_topics = {topic for topic, read in self._reads.items() if read.dedupe}
        candidates = [_candidate(i) for i in incomings if i.position.topic in screened_topics]
        if not candidates:
            return list(incomings)
        expires_on = (datetime.now(UTC) + timedelta(days=self._settings.inbox_days)).date()
        screened = await inbox.screen(tx, candidates, expires_on=expires_on)
        for c in screened.duplicates:
            effects.duplicate(c.incoming)
        dead += [
            DeadLetter(
                c.incoming.raw,
                "ID_CONFLICT",
                "the same identity with other content was taken first",
                c.identity,
                c.content_hash,
            )
            for c in screened.conflicts
        ]
        fresh = set()
        for c in screened.fresh:
            if self._skewed(c.incoming):
                effects.dead(
                    c.incoming,
                    "CLOCK_SKEW",
                    f"time: more than {self._settings.clock_skew_seconds_max:.0f} s after the broker's timestamp",
                )
            else:
                fresh.add(c.incoming.position)
        return [i for i in incomings if i.position.topic not in screened_topics or i.position in fresh]

    async def _settle(
        self, tx: asyncpg.Connection, effects: Effects, dead: list[DeadLetter], expired: Sequence[Decoded]
    ) -> None:
        """Store what is parked, and free the identities of what was given up after it had been taken."""
        unreadable = [item for item in expired if isinstance(item, Rejected)]
        forget = [i for item in unreadable for i in (_identity_of(item)[0], item.business) if i is not None]
        released = list(effects.released)
        gone = {_record(item).position for item in expired}
        for incoming, reason, detail in effects.dead_letters:
            c = _candidate(incoming)
            dead.append(DeadLetter(incoming.raw, reason, detail, c.identity, c.content_hash, c.business))
            forget += [c.identity] if c.business is None else [c.identity, c.business]
            if incoming.position not in gone and effects.parked.pop(incoming.position, None) is None:
                released.append(incoming.position)
        await inbox.forget_identities(tx, forget)
        await parking.delete_parked(tx, released)
        parked = list(effects.parked.values())
        await parking.store_parked(tx, parked, seconds_max=self._settings.parked_seconds_max)
        for incoming, _ in parked:
            slot = (incoming.position.topic, incoming.position.partition)
            expiry = incoming.timestamp + timedelta(seconds=self._settings.parked_seconds_max)
            self._next_expiry[slot] = min(self._next_expiry.get(slot, expiry), expiry)

    async def _expire(self, tx: asyncpg.Connection, clocks: Mapping[TopicPartition, datetime]) -> list[Decoded]:
        due = [(*slot, clock) for slot, clock in clocks.items() if clock >= self._next_expiry.get(slot, LONG_AGO)]
        if not due:
            return []
        expired = await parking.expire_parked(tx, due)
        far = datetime.max.replace(tzinfo=UTC)
        slots = [(topic, partition) for topic, partition, _ in due]
        self._next_expiry |= dict.fromkeys(slots, far) | await parking.next_expiries(tx, slots)
        return expired

    async def _revive(self, tx: asyncpg.Connection, items: Sequence[Decoded]) -> None:
        """Forget earlier deaths of redriven records, so that they may live, or fail visibly again: once."""
        again = [(item, _identity_of(item)) for item in items if _record(item).redriven]
        died = await dead_letters.died_here(tx, [_record(item) for item, _ in again], [known for _, known in again])
        revived: list[tuple[bytes, bytes]] = []
        for item, (identity, digest) in again:
            if _record(item).position not in died:
                business = _business_of(item)
                revived += [(i, digest) for i in (identity, business) if i is not None]
            elif isinstance(item, Incoming):
                item.redriven = False  # a repeat like any other
        await dead_letters.revive(tx, revived)

    async def _store_dead(self, tx: asyncpg.Connection, kept: Sequence[DeadLetter]) -> list[OutboxRow]:
        by_source: dict[TopicPartition, list[DeadLetter]] = {}
        for d in kept:
            by_source.setdefault((d.record.position.topic, d.record.position.partition), []).append(d)
        topic = dead_letter_topic(self._service)
        return [
            await outbox.store_raw(tx, source, topic, [dead_letters.dead_letter_record(d) for d in group])
            for source, group in by_source.items()
        ]

    # Pieces

    def _batch(self, items: Sequence[Decoded], claims: Mapping[TopicPartition, Claim]) -> Batch:
        ends: dict[TopicPartition, int] = {}
        oldest: dict[TopicPartition, datetime] = {}
        newest: dict[TopicPartition, datetime] = {}
        for item in items:
            record = _record(item)
            topic, partition, offset = record.position
            slot = (topic, partition)
            ends[slot] = offset + 1
            oldest.setdefault(slot, record.timestamp)
            newest[slot] = record.timestamp
        moves = [
            Move(claims[slot], end, max(newest[slot], claims[slot].newest_timestamp)) for slot, end in ends.items()
        ]
        clocks = {slot: max(oldest[slot], claims[slot].newest_timestamp) for slot in ends}
        return Batch(items, moves, self._held_back(clocks, claims))

    def _held_back(
        self, clocks: Mapping[TopicPartition, datetime], claims: Mapping[TopicPartition, Claim]
    ) -> dict[TopicPartition, datetime]:
        """Let no clock run ahead of a partition of the same number: what is waited for may lie there, unread."""
        behind = {slot: claim.newest_timestamp for slot, claim in claims.items() if slot not in self._level}
        slowest: dict[int, datetime] = {}
        for (_, partition), at in (behind | dict(clocks)).items():
            slowest[partition] = min(at, slowest.get(partition, at))
        return {slot: slowest[slot[1]] for slot in clocks}

    def _skewed(self, incoming: AnyIncoming) -> bool:
        if not self._reads[incoming.position.topic].upstream:
            return False
        return (incoming.event.time - incoming.timestamp).total_seconds() > self._settings.clock_skew_seconds_max

    def _mark_unpublished(self, effects: Effects, positions: Iterable[Position]) -> None:
        """Mark records that are not accepted and make no letter: dead before, or another reader's dead letter."""
        for position in positions:
            effects.marks[position] = "duplicate" if self._reads[position.topic].owns_dead_letters else "ignored"

    def _results(self, batch: Batch, effects: Effects, kept: Sequence[DeadLetter]) -> Counter[tuple[str, str, str]]:
        """Events by (topic, type, result): each record of the batch, and each that waits no longer."""
        types = {position: i.event.type for position, i in effects.released.items() if position not in effects.parked}
        results = {position: effects.marks.get(position, "accepted") for position in types}
        for item in batch.items:
            position = _record(item).position
            types[position] = item.event.type if isinstance(item, Incoming) else "invalid"
            results[position] = effects.marks.get(position, "accepted")
        types |= {incoming.position: incoming.event.type for incoming, _, _ in effects.dead_letters}
        results |= {d.record.position: "dead_letter" for d in kept}
        return Counter((p.topic, types.get(p, "invalid"), result) for p, result in results.items())

    def _observe(self, batch: Batch, outcome: Outcome, seconds: float) -> None:
        metrics = self._metrics
        for (topic, event_type, result), count in outcome.results.items():
            metrics.events.labels(self._service, topic, event_type, result).inc(count)
            if result == "duplicate":
                metrics.duplicates.inc(count)
        for action in outcome.effects.once_committed:
            action()
        for d in outcome.dead:
            metrics.dead_letters.labels(d.record.position.topic, d.reason).inc()
        if not batch.items:
            return
        now = datetime.now(UTC)
        events = [item for item in batch.items if isinstance(item, Incoming)]
        metrics.processing_seconds.observe([seconds])
        metrics.batch_records.observe([len(batch.items)])
        metrics.end_to_end_seconds.observe(
            [(now - (i.event.receivedtime or i.timestamp)).total_seconds() for i in events]
        )
        metrics.event_age_seconds.observe([(now - i.event.time).total_seconds() for i in events])


def _record(item: Decoded) -> AnyIncoming | RawRecord:
    return item if isinstance(item, Incoming) else item.record


def _halves(items: Sequence[Decoded], at: int) -> list[tuple[Sequence[Decoded], int]]:
    """Both parts for a first attempt, the earlier one on top."""
    return [(items[at:], 1), (items[:at], 1)]


def _candidate(incoming: AnyIncoming) -> Candidate:
    identity, digest = _identity_of(incoming)
    return Candidate(incoming, identity, _business_of(incoming), digest)


def _poison(item: Decoded, detail: str) -> Rejected:
    if isinstance(item, Rejected):
        return Rejected(item.record, InvalidRecordError("PROCESSING_FAILED", detail))
    event = item.event
    known = InvalidRecordError(
        "PROCESSING_FAILED", detail, source=event.source, id=event.id, content_hash=content_hash(event)
    )
    return Rejected(item.raw, known, _business_of(item))


def _business_of(item: Decoded) -> bytes | None:
    """Give the identity of an event's fact, whatever the event's id; not every type has one."""
    if isinstance(item, Rejected):
        return item.business
    event = item.event
    name = event.data.business_id_field
    return None if name is None else inbox.business_identity(event.type, getattr(event.data, name))


def _identity_of(item: Decoded) -> tuple[bytes, bytes]:
    """(identity, content hash) under which the item's death is remembered."""
    if isinstance(item, Incoming):
        return inbox.event_identity(item.event.source, item.event.id), content_hash(item.event)
    error, position = item.error, item.record.position
    if error.source is not None and error.id is not None and error.content_hash is not None:
        return inbox.event_identity(error.source, error.id), error.content_hash
    place = f"position\0{position.topic}\0{position.partition}\0{position.offset}"
    return blake2b(place.encode(), digest_size=16).digest(), b""


def _cut_after_death(items: Sequence[Decoded]) -> None:
    """Let a record see the death, in a transaction before its own, of one that claimed the same identity.

    Raises:
        BatchCutError: there is one.

    """
    dead: set[bytes] = set()
    for item in items:
        identity, _ = _identity_of(item)
        if identity in dead and (isinstance(item, Incoming) or _record(item).redriven):
            raise BatchCutError(_record(item).position)
        if isinstance(item, Rejected):
            dead.add(identity)


def _dead_of(rejected: Rejected) -> DeadLetter:
    identity, digest = _identity_of(rejected)
    return DeadLetter(
        rejected.record, rejected.error.reason, rejected.error.detail, identity, digest, rejected.business
    )
