"""Validated facts of a thread, numbered by `thread_version`; accounting facts are two of them, re-keyed by contract."""

from typing import ClassVar, Literal

from shared.events.base import (
    Candidate,
    Choice,
    Content,
    CreditCost,
    EventData,
    Id,
    InmailKind,
    InmailStatus,
    Number,
)
from shared.events.times import Instant

RejectionReason = Literal["THREAD_LOCKED", "AWAITING_REPLY", "UNKNOWN_THREAD"]


class _Conversation(EventData):
    key_field: ClassVar[str] = "thread_id"

    thread_id: Id
    thread_version: Number


class InmailStatusChangedV1(_Conversation):
    """An InMail has a new status. `at` is when it took it; `sent_at` is given once it is known."""

    type: ClassVar[str] = "inmail.status_changed.v1"
    time_field: ClassVar[str | None] = "at"

    inmail_id: Id
    contract_id: Id
    seat_id: Id
    candidate: Candidate
    kind: InmailKind
    automated: bool
    credit_cost: CreditCost
    status: InmailStatus
    at: Instant
    sent_at: Instant | None = None


class ReplyRecordedV1(_Conversation):
    """A reply was matched to the InMail that it answers (R12). `seat_id` is the seat that sent that InMail."""

    type: ClassVar[str] = "reply.recorded.v1"
    time_field: ClassVar[str | None] = "sent_at"

    reply_id: Id
    inmail_id: Id
    contract_id: Id
    seat_id: Id
    candidate: Candidate
    choice: Choice | None = None
    content: Content
    first_response: bool
    inmail_sent_at: Instant
    sent_at: Instant


class ReplyDraftChangedV1(_Conversation):
    """What the candidate has selected while composing; no `choice` means nothing."""

    type: ClassVar[str] = "reply.draft_changed.v1"
    time_field: ClassVar[str | None] = "at"

    choice: Choice | None = None
    at: Instant


class ThreadLockedV1(_Conversation):
    """Recruiter messages are rejected from now on (R4), because of this reply."""

    type: ClassVar[str] = "thread.locked.v1"

    reply_id: Id


class ThreadUnlockedV1(_Conversation):
    """Recruiter messages are accepted again (R6), because of this reply."""

    type: ClassVar[str] = "thread.unlocked.v1"

    reply_id: Id


class FollowUpCancelledV1(_Conversation):
    """A scheduled follow-up will not be sent, because the candidate has replied (R16)."""

    type: ClassVar[str] = "follow_up.cancelled.v1"
    time_field: ClassVar[str | None] = "at"

    inmail_id: Id
    reply_id: Id
    at: Instant


class ThreadAudienceChangedV1(_Conversation):
    """Who gets the thread's notifications."""

    type: ClassVar[str] = "thread.audience_changed.v1"
    time_field: ClassVar[str | None] = "at"

    owner_seat_id: Id
    follower_seat_ids: tuple[Id, ...]
    at: Instant


class _RecruiterMessage(_Conversation):
    time_field: ClassVar[str | None] = "at"

    message_id: Id
    seat_id: Id
    at: Instant


class RecruiterMessageAcceptedV1(_RecruiterMessage):
    """A recruiter's further message may be delivered."""

    type: ClassVar[str] = "recruiter_message.accepted.v1"


class RecruiterMessageRejectedV1(_RecruiterMessage):
    """A recruiter's further message may not be delivered."""

    type: ClassVar[str] = "recruiter_message.rejected.v1"

    reason: RejectionReason
