"""Requests to notify a seat, and their retraction."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.events.base import DerivedKey, EventData, Id, Number, Part
from shared.events.times import Instant

Channel = Literal["in_thread", "push", "email", "webhook"]
NotificationKind = Annotated[str, Field(min_length=1, max_length=128)]
"""Open: a reader must bear with kinds that it does not know."""


class Recipient(Part):
    """Who is notified."""

    seat_id: Id


class _Notification(EventData):
    key_field: ClassVar[str] = "recipient.seat_id"

    notification_id: Id
    recipient: Recipient
    channel: Channel
    subject_key: DerivedKey
    version: Number


class NotificationRequestedV1(_Notification):
    """One request per recipient and channel (R26 to R28)."""

    type: ClassVar[str] = "notification.requested.v1"

    kind: NotificationKind
    text: str
    locale: str
    thread_id: Id | None = None
    inmail_id: Id | None = None
    supersedes: Id | None = None
    deliver_after: Instant | None = None
    digest_key: DerivedKey | None = None


class NotificationRetractedV1(_Notification):
    """A request that has not been delivered yet no longer holds. `version` is that of the request."""

    type: ClassVar[str] = "notification.retracted.v1"

    reason: str
