"""What a batch does besides a service's own tables. The kit stores it in the transaction that moves the position."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from prometheus_client import Counter as CounterMetric

from shared.events import STRUCTURED_HEADERS, Cause, Event, EventData, decode, source_of
from shared.stream.records import AnyIncoming, Position, RawRecord
from shared.topics import TOPICS


@dataclass(slots=True)
class OutboxRows:
    """Encoded records for one topic, caused by one source partition, in order."""

    keys: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be processed, and why; `detail` names fields and never values."""

    record: RawRecord
    reason: str
    detail: str
    identity: bytes
    content_hash: bytes
    business: bytes | None = None
    """The fact's own identity: it comes back under no other event id. Not of a conflict, where an id was at fault."""


class EffectTooLargeError(Exception):
    """No reader would take the event, and the broker might not: what stands in the outbox it would refuse for ever."""


class Effects:
    """Collects the outgoing events, dead letters and parked records of one batch."""

    def __init__(self, service: str) -> None:
        self._source = source_of(service)
        self.outgoing: dict[tuple[str, int, str], OutboxRows] = {}
        self._lanes: dict[tuple[int, str], OutboxRows] = {}
        self._emitted: list[tuple[str, bytes, bytes, Position]] = []
        self._cause: AnyIncoming | None = None
        self.dead_letters: list[tuple[AnyIncoming, str, str]] = []
        self.parked: dict[Position, tuple[AnyIncoming, str]] = {}
        self.released: dict[Position, AnyIncoming] = {}
        self.marks: dict[Position, str] = {}
        """The result of each record that was not simply accepted."""
        self.once_committed: list[Callable[[], object]] = []
        """What is to be done in this process when the batch is committed: retries and dry runs must leave no trace."""

    def emit(
        self,
        topic: str,
        cause: AnyIncoming,
        data: EventData,
        *,
        at: datetime,
        index: int = 0,
        also: str | None = None,
    ) -> None:
        """Publish `data` once the batch is committed, on `topic` and under the same id `also` on another one.

        `at` is the instant the fact happened. `index` tells apart several events of one type with one cause; it must
        not depend on how records were batched.

        Raises:
            EffectTooLargeError: so the record in hand, the cause or what set it free, is given up, and none behind it.

        """
        if cause is not self._cause:
            origin = replace(cause.event, receivedtime=None) if cause.redriven else cause.event
            self._cause, self._writer = cause, Cause(origin, source=self._source, received=cause.timestamp)
        topics = (topic,) if also is None else (topic, also)
        records = self._writer.write(data, at=at, index=index, topics=topics)
        for target, (key, payload) in zip(topics, records, strict=True):
            bytes_max = TOPICS[target].value_bytes_max
            if len(payload) > bytes_max:
                message = f"{data.type} for {target}: {len(payload)} bytes, its readers take {bytes_max}"
                raise EffectTooLargeError(message)
            rows = self._rows(cause.position, target)
            rows.keys.append(key)
            rows.payloads.append(payload)
            self._emitted.append((target, key, payload, cause.position))

    @property
    def emitted(self) -> list[tuple[str, Event[EventData], Position]]:
        """What was emitted, as its readers will read it: topic, event, and the position of its cause."""
        return [
            (topic, decode(payload, key=key, headers=STRUCTURED_HEADERS, topic=topic), position)
            for topic, key, payload, position in self._emitted
        ]

    def dead(self, incoming: AnyIncoming, reason: str, detail: str) -> None:
        """Give a record up, with its original bytes; its identity is free again."""
        self.dead_letters.append((incoming, reason, detail))

    def park(self, incoming: AnyIncoming, wait_key: str) -> None:
        """Keep a record until `release`, or until its time is over and it is dead-lettered as `ORPHANED`."""
        self.parked[incoming.position] = (incoming, wait_key)
        self.marks[incoming.position] = "parked"

    def release(self, incoming: AnyIncoming) -> None:
        """Say that a parked record was handled now."""
        if self.parked.pop(incoming.position, None) is None:
            self.released[incoming.position] = incoming
        else:
            del self.marks[incoming.position]

    def duplicate(self, incoming: AnyIncoming) -> None:
        """Count a repeat that the service itself recognised."""
        self.marks[incoming.position] = "duplicate"

    def tally(self, counter: CounterMetric, amount: float = 1) -> None:
        """Raise a metric of the service's own once the batch is committed."""
        self.once_committed.append(partial(counter.inc, amount))

    def _rows(self, source: Position, topic: str) -> OutboxRows:
        # Topics joined by key share the partition and its owner, and what they cause for a key leaves in one order: so
        # one row per partition and target, under the source topic that came first.
        rows = self._lanes.get((source.partition, topic))
        if rows is None:
            rows = OutboxRows()
            self._lanes[source.partition, topic] = self.outgoing[source.topic, source.partition, topic] = rows
        return rows
