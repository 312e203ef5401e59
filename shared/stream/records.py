"""Records as the services see them: validated, with where they came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from shared.events import Event, EventData

D_co = TypeVar("D_co", bound=EventData, covariant=True)

Headers = Sequence[tuple[str, bytes]]

REDRIVE_HEADER = "dlq-redrive"
LEFT_OUT_HEADER = "dlq-left-out-bytes"


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
    headers: tuple[tuple[str, bytes], ...]

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
    headers: tuple[tuple[str, bytes], ...]
    redriven: bool = False

    @property
    def raw(self) -> RawRecord:
        """The record it was made from."""
        return RawRecord(self.position, self.timestamp, self.key, self.value, self.headers)


AnyIncoming = Incoming[Any]
