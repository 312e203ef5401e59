"""Every human reply, for the service that decides outcomes."""

from typing import ClassVar

from shared.events.base import Candidate, Choice, Content, EventData, Id, Number
from shared.events.times import Instant


class ClassificationRequestedV1(EventData):
    """A human reply needs its outcome. `text` is there only where it must be classified."""

    type: ClassVar[str] = "classification.requested.v1"
    key_field: ClassVar[str] = "thread_id"
    time_field: ClassVar[str | None] = "responded_at"

    reply_id: Id
    thread_id: Id
    inmail_id: Id
    contract_id: Id
    seat_id: Id
    candidate: Candidate
    choice: Choice | None = None
    content: Content
    text: str | None = None
    thread_version: Number
    responded_at: Instant
