"""What the services publish about a thread, for tests of their readers: numbered as their writers number it.

`Conversation` keeps the thread's numbers, so a test names only what it is about. Its events have no cause unless one is
given: readers know them by their ids.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from shared.events import (
    Balance,
    Candidate,
    Choice,
    Content,
    CorrectionRejection,
    CreditDeniedV1,
    CreditPostedV1,
    DenialReason,
    Event,
    EventData,
    FollowUpCancelledV1,
    InmailKind,
    InmailStatus,
    InmailStatusChangedV1,
    LedgerKind,
    NotificationRequestedV1,
    NotificationRetractedV1,
    Outcome,
    OutcomeCorrectionRejectedV1,
    OutcomeDecidedV1,
    OutcomeSource,
    OutcomeUnchangedV1,
    Recipient,
    RecruiterMessageRejectedV1,
    RejectionReason,
    ReplyDraftChangedV1,
    ReplyRecordedV1,
    ThreadAudienceChangedV1,
    ThreadLockedV1,
    ThreadUnlockedV1,
)
from shared.testing.builders import ADA, START, after, event

AnyEvent = Event[Any]

_DAY: Final = after(days=1)


@dataclass(slots=True)
class Conversation:
    """One thread: each method makes the next event about it."""

    thread_id: str = "thread-1"
    contract_id: str = "contract-1"
    seat_id: str = "seat-1"
    candidate: Candidate = ADA
    version: int = 0
    outcome_version: int = 0
    outcome: Outcome | None = None
    replies: dict[str, ReplyRecordedV1] = field(default_factory=dict)
    sent_at: dict[str, datetime] = field(default_factory=dict)

    def status(
        self,
        status: InmailStatus = "sent",
        at: datetime = START,
        *,
        inmail_id: str = "inmail-1",
        kind: InmailKind = "initial",
        credit_cost: int = 1,
        automated: bool = False,
        candidate: Candidate | None = None,
    ) -> AnyEvent:
        """`inmail.status_changed.v1`."""
        if status == "sent":
            self.sent_at[inmail_id] = at
        return event(
            InmailStatusChangedV1(
                inmail_id=inmail_id,
                thread_id=self.thread_id,
                contract_id=self.contract_id,
                seat_id=self.seat_id,
                candidate=candidate or self.candidate,
                kind=kind,
                automated=automated,
                credit_cost=credit_cost,
                status=status,
                at=at,
                sent_at=self.sent_at.get(inmail_id),
                thread_version=self._next(),
            )
        )

    def audience(
        self, owner_seat_id: str = "seat-1", *, follower_seat_ids: tuple[str, ...] = (), at: datetime = START
    ) -> AnyEvent:
        """`thread.audience_changed.v1`."""
        return event(
            ThreadAudienceChangedV1(
                thread_id=self.thread_id,
                owner_seat_id=owner_seat_id,
                follower_seat_ids=follower_seat_ids,
                at=at,
                thread_version=self._next(),
            )
        )

    def reply(
        self,
        at: datetime = _DAY,
        *,
        reply_id: str = "reply-1",
        inmail_id: str = "inmail-1",
        choice: Choice | None = None,
        content: Content = "message",
    ) -> AnyEvent:
        """`reply.recorded.v1`."""
        data = ReplyRecordedV1(
            reply_id=reply_id,
            thread_id=self.thread_id,
            inmail_id=inmail_id,
            contract_id=self.contract_id,
            seat_id=self.seat_id,
            candidate=Candidate(id=self.candidate.id, name=self.candidate.name),
            choice=choice,
            content=content,
            first_response=all(known.inmail_id != inmail_id for known in self.replies.values()),
            inmail_sent_at=self.sent_at.get(inmail_id, START),
            sent_at=at,
            thread_version=self._next(),
        )
        self.replies[reply_id] = data
        return event(data)

    def draft(self, choice: Choice | None, *, at: datetime = START) -> AnyEvent:
        """`reply.draft_changed.v1`."""
        return event(ReplyDraftChangedV1(thread_id=self.thread_id, choice=choice, at=at, thread_version=self._next()))

    def locked(self, reply_id: str = "reply-1") -> AnyEvent:
        """`thread.locked.v1`."""
        return self._of_reply(ThreadLockedV1, reply_id)

    def unlocked(self, reply_id: str = "reply-1") -> AnyEvent:
        """`thread.unlocked.v1`."""
        return self._of_reply(ThreadUnlockedV1, reply_id)

    def follow_up_cancelled(self, inmail_id: str, *, reply_id: str = "reply-1") -> AnyEvent:
        """`follow_up.cancelled.v1`."""
        return event(
            FollowUpCancelledV1(
                inmail_id=inmail_id,
                thread_id=self.thread_id,
                reply_id=reply_id,
                at=self.replies[reply_id].sent_at,
                thread_version=self._next(),
            )
        )

    def message_rejected(
        self, reason: RejectionReason = "AWAITING_REPLY", *, message_id: str = "message-1", at: datetime = _DAY
    ) -> AnyEvent:
        """`recruiter_message.rejected.v1`."""
        return event(
            RecruiterMessageRejectedV1(
                message_id=message_id,
                thread_id=self.thread_id,
                seat_id=self.seat_id,
                reason=reason,
                at=at,
                thread_version=self._next(),
            )
        )

    def decided(
        self,
        outcome: Outcome = "accepted",
        *,
        reply_id: str = "reply-1",
        source: OutcomeSource = "classifier",
        at: datetime | None = None,
    ) -> AnyEvent:
        """`outcome.decided.v1`, the next version; `at` is when a human decided it."""
        self.outcome_version += 1
        previous, self.outcome = self.outcome, outcome
        fields = self._outcome(reply_id, source=source)
        return event(
            OutcomeDecidedV1(**{**fields, "decided_at": at or fields["decided_at"]}, outcome=outcome, previous=previous)
        )

    def unchanged(self, *, reply_id: str = "reply-1", source: OutcomeSource = "classifier") -> AnyEvent:
        """`outcome.unchanged.v1`."""
        return event(OutcomeUnchangedV1(**self._outcome(reply_id, source=source), outcome=self.outcome or "accepted"))

    def correction_rejected(self, reason: CorrectionRejection = "STALE_VERSION", *, at: datetime = _DAY) -> AnyEvent:
        """`outcome.correction_rejected.v1`."""
        return event(
            OutcomeCorrectionRejectedV1(
                thread_id=self.thread_id,
                version=1,
                outcome="declined",
                corrected_by="seat-1",
                reason=reason,
                thread_version=self.version,
                at=at,
            )
        )

    def notified(
        self, cause: AnyEvent, *, notification_id: str = "notification-1", seat_id: str = "seat-1"
    ) -> AnyEvent:
        """`notification.requested.v1` in the thread."""
        data = NotificationRequestedV1(
            notification_id=notification_id,
            recipient=Recipient(seat_id=seat_id),
            channel="in_thread",
            kind="candidate_interested",
            text=f"Candidate {self.candidate.name} is interested.",
            locale="en",
            thread_id=self.thread_id,
            inmail_id=cause.data.inmail_id,
            subject_key=self.thread_id,
            version=1,
        )
        return caused_by(cause, event(data, time=cause.time))

    def retracted(self, cause: AnyEvent, *, notification_id: str = "notification-1") -> AnyEvent:
        """`notification.retracted.v1`."""
        data = NotificationRetractedV1(
            notification_id=notification_id,
            recipient=Recipient(seat_id=self.seat_id),
            channel="in_thread",
            subject_key=self.thread_id,
            version=1,
            reason="SUPERSEDED",
        )
        return caused_by(cause, event(data, time=cause.time))

    def _outcome(self, reply_id: str, *, source: OutcomeSource) -> dict[str, Any]:
        reply = self.replies[reply_id]
        return {
            "outcome_id": f"{self.thread_id}/{self.outcome_version}",
            "thread_id": self.thread_id,
            "inmail_id": reply.inmail_id,
            "reply_id": reply_id,
            "contract_id": self.contract_id,
            "seat_id": self.seat_id,
            "candidate": reply.candidate,
            "source": source,
            "confidence": 0.75,
            "needs_confirmation": False,
            "signals": (),
            "model_version": "model-1" if source == "classifier" else None,
            "version": self.outcome_version,
            "thread_version": reply.thread_version,
            "responded_at": reply.sent_at,
            "decided_at": reply.sent_at,
        }

    def _of_reply(self, kind: type[ThreadLockedV1 | ThreadUnlockedV1], reply_id: str) -> AnyEvent:
        data = kind(thread_id=self.thread_id, reply_id=reply_id, thread_version=self._next())
        return event(data, time=self.replies[reply_id].sent_at)

    def _next(self) -> int:
        self.version += 1
        return self.version


@dataclass(slots=True)
class Ledger:
    """One contract's ledger: each call makes its next line."""

    contract_id: str = "contract-1"
    number: int = 0
    available: int = 0
    held: int = 0

    def posted(
        self, kind: LedgerKind, at: datetime = START, *, inmail_id: str | None = None, amount: int = 1
    ) -> AnyEvent:
        """`credit.posted.v1`."""
        available, held = _MOVES[kind]
        self.number += 1
        self.available += available * amount
        self.held += held * amount
        return event(
            CreditPostedV1(
                entry_id=f"{self.contract_id}/{self.number}",
                entry_number=self.number,
                contract_id=self.contract_id,
                seat_id=None if inmail_id is None else "seat-1",
                inmail_id=inmail_id,
                kind=kind,
                amount=amount,
                balance_after=Balance(available=self.available, held=self.held),
                cause_id=f"cause-{self.number}",
                effective_at=at,
            )
        )

    def denied(
        self, inmail_id: str, reason: DenialReason = "INSUFFICIENT_CREDITS", *, at: datetime = START
    ) -> AnyEvent:
        """`credit.denied.v1`."""
        return event(
            CreditDeniedV1(contract_id=self.contract_id, seat_id="seat-1", inmail_id=inmail_id, reason=reason, at=at)
        )


_MOVES: Final[dict[LedgerKind, tuple[int, int]]] = {
    "granted": (1, 0),
    "expired": (-1, 0),
    "held": (-1, 1),
    "captured": (0, -1),
    "released": (1, -1),
    "charged": (-1, 0),
    "refunded": (1, 0),
    "returned": (1, 0),
}


def caused_by(cause: Event[EventData], made: AnyEvent) -> AnyEvent:
    """Put an event behind its cause in the causal chain."""
    return replace(
        made, causeid=cause.id, causesource=cause.source, rootid=cause.rootid or cause.id, receivedtime=cause.time
    )
