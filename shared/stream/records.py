"""Records as the services see them: validated, with where they came from."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import orjson

from shared.events import Event, EventData, Headers, InvalidRecordError, decode

Header = tuple[str, bytes | None]

D_co = TypeVar("D_co", bound=EventData, covariant=True)


REDRIVE_HEADER = "dlq-redrive"
LEFT_OUT_HEADER = "dlq-left-out-bytes"


def packed(headers: Headers) -> bytes:
    """Write headers for a column of a table; one without a value is another than one with an empty value."""
    return orjson.dumps([[name, None if value is None else value.hex()] for name, value in headers])


def unpacked(stored: bytes) -> tuple[Header, ...]:
    """Read headers as `packed` wrote them."""
    return tuple((name, None if value is None else bytes.fromhex(value)) for name, value in orjson.loads(stored))


class Position(NamedTuple):
    """Where a record stands on the broker."""

    topic: str
    partition: int
    offset: int


# The classes below are not frozen: that would triple the cost of making one, and there is one for each record.


@dataclass(slots=True)
class RawRecord:
    """A record as the broker gave it, before anything is believed about it."""

    position: Position
    timestamp: datetime
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]

    @property
    def redriven(self) -> bool:
        """Whether an operator sent this dead letter back."""
        return any(name == REDRIVE_HEADER for name, _ in self.headers)


@dataclass(slots=True)
class Incoming(Generic[D_co]):
    """A record whose event is valid; `timestamp` is the broker's, UTC with milliseconds."""

    position: Position
    timestamp: datetime
    event: Event[D_co]
    key: bytes
    value: bytes
    headers: tuple[Header, ...]
    redriven: bool = False

    @property
    def raw(self) -> RawRecord:
        """The record it was made from."""
        return RawRecord(self.position, self.timestamp, self.key, self.value, self.headers)


AnyIncoming = Incoming[Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is no valid event."""

    record: RawRecord
    error: InvalidRecordError
    business: bytes | None = None
    """The identity of its fact, where it is an event that could not be applied."""


Decoded = AnyIncoming | Rejected


def decoded(record: RawRecord) -> Decoded:
    """Read a record's event."""
    try:
        event = decode(record.value, key=record.key, headers=record.headers, topic=record.position.topic)
    except InvalidRecordError as error:
        return Rejected(record, error)
    return Incoming(
        record.position,
        record.timestamp,
        event,
        record.key or b"",
        record.value or b"",
        record.headers,
        record.redriven if record.headers else False,
    )


class Arrived(Protocol):
    """What the broker has taken."""

    @property
    def position(self) -> Position: ...  # noqa: D102
    @property
    def timestamp(self) -> datetime: ...  # noqa: D102


A = TypeVar("A", bound=Arrived)


def in_order_of_arrival(records: Iterable[A]) -> list[A]:
    """Merge the partitions of a batch by the broker's timestamps, then by names; each partition keeps its own order."""
    newest: dict[tuple[str, int], datetime] = {}
    keyed = []
    for record in records:
        topic, partition, offset = record.position
        # The broker's clock may step back when a partition gets another leader; its order of records stands.
        timestamp = max(record.timestamp, newest.get((topic, partition), record.timestamp))
        newest[topic, partition] = timestamp
        keyed.append(((timestamp, topic, partition, offset), record))
    keyed.sort(key=lambda pair: pair[0])
    return [record for _, record in keyed]
