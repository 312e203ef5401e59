"""The event in memory, and the error that says why a record is none."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, Literal, TypeVar

from shared.events.base import EventData

D_co = TypeVar("D_co", bound=EventData, covariant=True)

Headers = Sequence[tuple[str, bytes | None]]
Reason = Literal[
    "INVALID_JSON",
    "INVALID_EVENT",
    "UNKNOWN_TYPE",
    "TOO_LARGE",
    "ID_CONFLICT",
    "EMPTY_RESPONSE",
    "CLOCK_SKEW",
    "ORPHANED",
    "PROCESSING_FAILED",
]
"""Why a record is a dead letter. `decode` gives the first four."""

STRUCTURED_CONTENT_TYPE: Final = "application/cloudevents+json"
STRUCTURED_HEADERS: Final[list[tuple[str, bytes]]] = [("content-type", STRUCTURED_CONTENT_TYPE.encode())]
DATA_CONTENT_TYPE: Final = "application/json"


# Not frozen: a frozen class takes three times as long to make, and there is one for each record. Nobody changes one.
@dataclass(slots=True)
class Event(Generic[D_co]):
    """One validated event. Times are UTC milliseconds; `subject` is the key of its topic.

    `causeid`, `causesource`, `rootid` and `receivedtime` are there on derived events only.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: D_co
    traceparent: str | None = None
    causeid: str | None = None
    causesource: str | None = None
    rootid: str | None = None
    receivedtime: datetime | None = None


class InvalidRecordError(Exception):
    """A record is no event that its topic may carry.

    `reason` is the dead letter's; `detail` names fields and kinds of error, never values. `source`, `id` and
    `content_hash` are all given where they could still be read, else none of them, so that a repeat of the same record
    can be told from another one.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        source: str | None = None,
        id: str | None = None,  # noqa: A002 - the attribute's name in CloudEvents
        content_hash: bytes | None = None,
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
        self.source = source
        self.id = id
        self.content_hash = content_hash
