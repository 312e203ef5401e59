"""What recruiters and candidates did, as the messaging platform tells it."""

from typing import Annotated, ClassVar

from pydantic import Field

from shared.events.base import Candidate, Choice, Count, CreditCost, EventData, Id, InmailKind, Template
from shared.events.times import Instant


class _Inmail(EventData):
    key_field: ClassVar[str] = "thread_id"
    business_id_field: ClassVar[str | None] = "inmail_id"

    inmail_id: Id
    thread_id: Id
    contract_id: Id
    seat_id: Id
    candidate: Candidate
    kind: InmailKind
    automated: bool
    credit_cost: CreditCost


class InmailScheduledV1(_Inmail):
    """An InMail was scheduled for delivery. When that was, the envelope's `time` says."""

    type: ClassVar[str] = "inmail.scheduled.v1"

    deliver_at: Instant


class InmailSentV1(_Inmail):
    """An InMail's delivery was accepted."""

    type: ClassVar[str] = "inmail.sent.v1"
    time_field: ClassVar[str | None] = "sent_at"

    sent_at: Instant


class InmailUndeliveredV1(EventData):
    """An InMail could not be delivered."""

    type: ClassVar[str] = "inmail.undelivered.v1"
    key_field: ClassVar[str] = "thread_id"
    time_field: ClassVar[str | None] = "failed_at"
    business_id_field: ClassVar[str | None] = "inmail_id"

    inmail_id: Id
    thread_id: Id
    reason: str
    failed_at: Instant


class InmailWithdrawnV1(EventData):
    """The recruiter took an InMail back, before or after it was sent."""

    type: ClassVar[str] = "inmail.withdrawn.v1"
    key_field: ClassVar[str] = "thread_id"
    time_field: ClassVar[str | None] = "withdrawn_at"
    business_id_field: ClassVar[str | None] = "inmail_id"

    inmail_id: Id
    thread_id: Id
    withdrawn_at: Instant


class ReplyDraftedV1(EventData):
    """The candidate picked, changed or (no `choice`) dropped a smart reply while composing."""

    type: ClassVar[str] = "reply.drafted.v1"
    key_field: ClassVar[str] = "thread_id"
    time_field: ClassVar[str | None] = "drafted_at"

    thread_id: Id
    candidate_id: Id
    choice: Choice | None = None
    drafted_at: Instant


class ReplySentV1(EventData):
    """The candidate sent a reply, or the platform did so for them (`automated`)."""

    type: ClassVar[str] = "reply.sent.v1"
    key_field: ClassVar[str] = "thread_id"
    time_field: ClassVar[str | None] = "sent_at"
    business_id_field: ClassVar[str | None] = "reply_id"

    reply_id: Id
    thread_id: Id
    candidate_id: Id
    in_reply_to: Annotated[Id | None, Field(description="The inmail_id that the candidate answered.")] = None
    choice: Choice | None = None
    template: Template | None = None
    text: str
    attachments: Count
    automated: bool
    sent_at: Instant


class RecruiterMessageSentV1(EventData):
    """The recruiter writes on in a thread."""

    type: ClassVar[str] = "recruiter_message.sent.v1"
    key_field: ClassVar[str] = "thread_id"
    time_field: ClassVar[str | None] = "sent_at"
    business_id_field: ClassVar[str | None] = "message_id"

    message_id: Id
    thread_id: Id
    seat_id: Id
    text: str
    sent_at: Instant


class _ThreadSeat(EventData):
    key_field: ClassVar[str] = "thread_id"
    time_field: ClassVar[str | None] = "at"

    thread_id: Id
    seat_id: Id
    at: Instant


class ThreadFollowedV1(_ThreadSeat):
    """A colleague also wants this thread's notifications."""

    type: ClassVar[str] = "thread.followed.v1"


class ThreadUnfollowedV1(_ThreadSeat):
    """A colleague no longer wants this thread's notifications."""

    type: ClassVar[str] = "thread.unfollowed.v1"


class ThreadReassignedV1(_ThreadSeat):
    """The thread has a new owner: `seat_id`."""

    type: ClassVar[str] = "thread.reassigned.v1"
