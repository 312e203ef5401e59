"""The rules of a conversation. Pure: `decide(thread, event)` says what an event means to a thread.

It changes the thread it is given and nothing else; what is to be published is in the decision, in order. A decision
other than `applied` leaves the thread as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from services.ingestion.matching import answered_inmail, read, says_template_now
from services.ingestion.state import Following, Inmail, Reply, Thread
from shared.events import (
    Candidate,
    ClassificationRequestedV1,
    Content,
    Event,
    EventData,
    FollowUpCancelledV1,
    InmailScheduledV1,
    InmailSentV1,
    InmailStatus,
    InmailStatusChangedV1,
    InmailUndeliveredV1,
    InmailWithdrawnV1,
    RecruiterMessageAcceptedV1,
    RecruiterMessageRejectedV1,
    RecruiterMessageSentV1,
    RejectionReason,
    ReplyDraftChangedV1,
    ReplyDraftedV1,
    ReplyRecordedV1,
    ReplySentV1,
    ThreadAudienceChangedV1,
    ThreadFollowedV1,
    ThreadLockedV1,
    ThreadReassignedV1,
    ThreadUnfollowedV1,
    ThreadUnlockedV1,
)
from shared.text import normalise

Verdict = Literal["applied", "parked", "dead"]


@dataclass(slots=True)  # not frozen: that would triple the cost of making one
class Outgoing:
    """An event to publish. `index` counts those of the same type and cause."""

    data: EventData
    at: datetime
    index: int


class Decision(NamedTuple):
    """What an event means. `dead` has a reason and the fields it is about; `parked` waits for an InMail."""

    verdict: Verdict
    outgoing: tuple[Outgoing, ...] = ()
    reason: str = ""
    detail: str = ""
    unknown_template: bool = False
    brings_inmail: bool = False
    """What is parked for this thread may be decided now."""


_PARKED: Final = Decision("parked")
_EMPTY_RESPONSE: Final = Decision(
    "dead", reason="EMPTY_RESPONSE", detail="data.text, data.choice, data.attachments: all empty"
)


@dataclass(slots=True)
class _Turn:
    """One event's turn at its thread: gathers what it publishes."""

    thread: Thread
    outgoing: list[Outgoing] = field(default_factory=list)

    def next_version(self) -> int:
        """Give the number of the thread's next conversation event: from 1, without gaps."""
        self.thread.version += 1
        self.thread.changes.thread = True
        return self.thread.version

    def publish(self, data: EventData, at: datetime) -> None:
        kind, index = type(data), 0
        for sent in self.outgoing:
            index += type(sent.data) is kind
        self.outgoing.append(Outgoing(data, at, index))

    def applied(self, *, unknown_template: bool = False, brings_inmail: bool = False) -> Decision:
        return Decision("applied", tuple(self.outgoing), unknown_template=unknown_template, brings_inmail=brings_inmail)


def decide(thread: Thread, event: Event[Any]) -> Decision:
    """Decide an upstream event of a thread."""
    return _RULES[type(event.data)](_Turn(thread), event)


# InMails: sets of facts


def _scheduled(turn: _Turn, event: Event[InmailScheduledV1]) -> Decision:
    data, thread, known = event.data, turn.thread, turn.thread.inmails.get(event.data.inmail_id)
    before = thread.audience
    inmail = known or _described(data)
    inmail.scheduled_at, inmail.scheduled_name = event.time, data.candidate.name
    inmail.locale, inmail.time_zone = _place(inmail, data.candidate)
    thread.inmails[data.inmail_id] = inmail
    _publish_status(turn, inmail, "scheduled", event.time)
    reply = thread.first_reply_from(event.time)
    if reply is not None and inmail.cancellable(reply.sent_at):
        _cancel(turn, inmail, reply)
    _publish_audience_unless(turn, before, event.time)
    _publish_lock_if_changed(turn)
    return turn.applied(brings_inmail=True)


def _sent(turn: _Turn, event: Event[InmailSentV1]) -> Decision:
    data, thread, known = event.data, turn.thread, turn.thread.inmails.get(event.data.inmail_id)
    before = thread.audience
    inmail = _described(data)
    if known is not None:
        inmail.scheduled_at, inmail.scheduled_name = known.scheduled_at, known.scheduled_name
        inmail.undelivered_at, inmail.withdrawn_at = known.undelivered_at, known.withdrawn_at
        inmail.cancelled_at = known.cancelled_at
        inmail.locale, inmail.time_zone = _place(inmail, known)
    inmail.sent_at, inmail.sent_name = data.sent_at, data.candidate.name
    thread.inmails[data.inmail_id] = inmail
    _publish_status(turn, inmail, "sent", data.sent_at)
    _publish_audience_unless(turn, before, data.sent_at)
    _publish_lock_if_changed(turn)
    return turn.applied(brings_inmail=True)


def _undelivered(turn: _Turn, event: Event[InmailUndeliveredV1]) -> Decision:
    inmail = turn.thread.inmails.get(event.data.inmail_id)
    if inmail is None:
        return _PARKED
    inmail.undelivered_at = event.data.failed_at
    _publish_status(turn, inmail, "undelivered", event.data.failed_at)
    return turn.applied()


def _withdrawn(turn: _Turn, event: Event[InmailWithdrawnV1]) -> Decision:
    inmail = turn.thread.inmails.get(event.data.inmail_id)
    if inmail is None:
        return _PARKED
    inmail.withdrawn_at = event.data.withdrawn_at
    _publish_status(turn, inmail, "withdrawn", event.data.withdrawn_at)
    return turn.applied()


def _described(data: InmailScheduledV1 | InmailSentV1) -> Inmail:
    return Inmail(
        inmail_id=data.inmail_id,
        contract_id=data.contract_id,
        seat_id=data.seat_id,
        candidate_id=data.candidate.id,
        locale=data.candidate.locale,
        time_zone=data.candidate.time_zone,
        kind=data.kind,
        automated=data.automated,
        credit_cost=data.credit_cost,
    )


def _place(inmail: Inmail, other: Inmail | Candidate) -> tuple[str | None, str | None]:
    """Give the candidate's locale and time zone; what an InMail does not say of them is what is said elsewhere."""
    return inmail.locale or other.locale, inmail.time_zone or other.time_zone


def _publish_status(turn: _Turn, inmail: Inmail, status: InmailStatus, at: datetime) -> None:
    """Publish a new fact: the status names the fact that came, which is not always the one that counts in the end."""
    turn.thread.changes.inmail_ids.add(inmail.inmail_id)
    turn.publish(
        InmailStatusChangedV1(
            inmail_id=inmail.inmail_id,
            thread_id=turn.thread.thread_id,
            contract_id=inmail.contract_id,
            seat_id=inmail.seat_id,
            candidate=Candidate(
                id=inmail.candidate_id, name=inmail.candidate_name, locale=inmail.locale, time_zone=inmail.time_zone
            ),
            kind=inmail.kind,
            automated=inmail.automated,
            credit_cost=inmail.credit_cost,
            status=status,
            at=at,
            sent_at=inmail.sent_at,
            thread_version=turn.next_version(),
        ),
        at,
    )


def _cancel(turn: _Turn, inmail: Inmail, reply: Reply) -> None:
    """Cancel a follow-up that a reply made pointless, as of that reply (R16)."""
    inmail.cancelled_at = reply.sent_at
    turn.publish(
        FollowUpCancelledV1(
            inmail_id=inmail.inmail_id,
            thread_id=turn.thread.thread_id,
            reply_id=reply.reply_id,
            at=reply.sent_at,
            thread_version=turn.next_version(),
        ),
        reply.sent_at,
    )
    _publish_status(turn, inmail, "cancelled", reply.sent_at)


# Replies


def _reply_sent(turn: _Turn, event: Event[ReplySentV1]) -> Decision:
    data, thread = event.data, turn.thread
    words = "" if data.automated else normalise(data.text)
    if not data.automated and not words and data.choice is None and not data.attachments:
        return _EMPTY_RESPONSE
    inmail = answered_inmail(thread, data)
    if inmail is None or inmail.sent_at is None:
        return _PARKED
    if data.automated:
        # Nobody has answered: the thread goes on waiting, whatever the away message says (R9).
        _publish_recorded(turn, data, inmail, inmail.sent_at, content="automated", first_response=False)
        return turn.applied()
    selected = thread.selected
    reading = read(thread, data, words)
    first_response = all(known.inmail_id != inmail.inmail_id for known in thread.replies)
    version = _publish_recorded(turn, data, inmail, inmail.sent_at, reading.content, first_response=first_response)
    _publish_request(turn, data, inmail, reading.content, version, has_words=bool(words))
    refuses = data.choice == "not_interested"
    reply = Reply(
        reply_id=data.reply_id,
        sent_at=data.sent_at,
        inmail_id=inmail.inmail_id,
        locks=refuses and reading.content == "template_only",
        unmatched=reading.unmatched if refuses else None,
    )
    thread.add_reply(reply)
    _publish_lock_if_changed(turn)
    waiting = [inmail for inmail in thread.inmails.values() if inmail.cancellable(data.sent_at)]
    for inmail in sorted(waiting, key=lambda known: (known.first_known_at, known.inmail_id)):
        _cancel(turn, inmail, reply)
    _publish_draft_unless(turn, selected, data.sent_at)
    return turn.applied(unknown_template=reading.unknown_template)


def _publish_recorded(
    turn: _Turn, data: ReplySentV1, inmail: Inmail, inmail_sent_at: datetime, content: Content, *, first_response: bool
) -> int:
    version = turn.next_version()
    turn.publish(
        ReplyRecordedV1(
            reply_id=data.reply_id,
            thread_id=data.thread_id,
            inmail_id=inmail.inmail_id,
            contract_id=inmail.contract_id,
            seat_id=inmail.seat_id,
            candidate=Candidate(id=inmail.candidate_id, name=turn.thread.candidate_name(inmail)),
            choice=data.choice,
            content=content,
            first_response=first_response,
            inmail_sent_at=inmail_sent_at,
            sent_at=data.sent_at,
            thread_version=version,
        ),
        data.sent_at,
    )
    return version


def _publish_request(
    turn: _Turn, data: ReplySentV1, inmail: Inmail, content: Content, version: int, *, has_words: bool
) -> None:
    """Ask for an outcome. The text goes along only where it has to be read: a choice decides by itself (R1)."""
    turn.publish(
        ClassificationRequestedV1(
            reply_id=data.reply_id,
            thread_id=data.thread_id,
            inmail_id=inmail.inmail_id,
            contract_id=inmail.contract_id,
            seat_id=inmail.seat_id,
            candidate=Candidate(id=inmail.candidate_id, name=turn.thread.candidate_name(inmail), locale=inmail.locale),
            choice=data.choice,
            content=content,
            text=data.text if content == "message" and has_words else None,
            thread_version=version,
            responded_at=data.sent_at,
        ),
        data.sent_at,
    )


def _publish_lock_if_changed(turn: _Turn) -> None:
    """Lock or unlock as the newest human reply says.

    Every human reply says one or the other: a bare refusal locks (R4); own words, an attachment or interest unlock
    (R6). So folding all of them in order ends as the newest one alone.
    """
    thread, newest = turn.thread, turn.thread.newest_reply
    if newest is None:
        return
    if newest.unmatched is not None and says_template_now(thread, newest):
        newest.locks, newest.unmatched = True, None
        thread.changes.replies[newest.reply_id] = newest
    if newest.locks == thread.locked:
        return
    thread.locked = newest.locks
    event = ThreadLockedV1 if newest.locks else ThreadUnlockedV1
    turn.publish(
        event(thread_id=thread.thread_id, reply_id=newest.reply_id, thread_version=turn.next_version()), newest.sent_at
    )


def _reply_drafted(turn: _Turn, event: Event[ReplyDraftedV1]) -> Decision:
    data, thread = event.data, turn.thread
    # Two drafts of the same instant: which one stands must not depend on which came first, so the choice decides.
    if thread.drafted_at is None or (data.drafted_at, data.choice or "") > (
        thread.drafted_at,
        thread.draft_choice or "",
    ):
        selected = thread.selected
        thread.drafted_at, thread.draft_choice = data.drafted_at, data.choice
        thread.changes.thread = True
        _publish_draft_unless(turn, selected, data.drafted_at)
    return turn.applied()


def _publish_draft_unless(turn: _Turn, selected: str | None, at: datetime) -> None:
    thread = turn.thread
    if thread.selected != selected:
        turn.publish(
            ReplyDraftChangedV1(
                thread_id=thread.thread_id, choice=thread.selected, at=at, thread_version=turn.next_version()
            ),
            at,
        )


# Recruiters


def _recruiter_message_sent(turn: _Turn, event: Event[RecruiterMessageSentV1]) -> Decision:
    data, reason, version = event.data, _rejection(turn.thread), turn.next_version()
    if reason is None:
        turn.publish(
            RecruiterMessageAcceptedV1(
                message_id=data.message_id,
                thread_id=data.thread_id,
                seat_id=data.seat_id,
                at=data.sent_at,
                thread_version=version,
            ),
            data.sent_at,
        )
    else:
        turn.publish(
            RecruiterMessageRejectedV1(
                message_id=data.message_id,
                thread_id=data.thread_id,
                seat_id=data.seat_id,
                reason=reason,
                at=data.sent_at,
                thread_version=version,
            ),
            data.sent_at,
        )
    return turn.applied()


def _rejection(thread: Thread) -> RejectionReason | None:
    """Say why the recruiter may not write, by what is known now (R4, R20)."""
    if not thread.inmails:
        return "UNKNOWN_THREAD"
    if thread.locked:
        return "THREAD_LOCKED"
    return None if thread.replies else "AWAITING_REPLY"


def _followed(turn: _Turn, event: Event[ThreadFollowedV1]) -> Decision:
    return _follow(turn, event.data.seat_id, Following(event.data.at, following=True))


def _unfollowed(turn: _Turn, event: Event[ThreadUnfollowedV1]) -> Decision:
    return _follow(turn, event.data.seat_id, Following(event.data.at, following=False))


def _follow(turn: _Turn, seat_id: str, word: Following) -> Decision:
    thread = turn.thread
    known = thread.followings.get(seat_id)
    # At the same instant following wins: a notification too many does less harm than one too few.
    if known is None or (word.at, word.following) > (known.at, known.following):
        before = thread.audience
        thread.followings[seat_id] = word
        thread.changes.seat_ids.add(seat_id)
        _publish_audience_unless(turn, before, word.at)
    return turn.applied()


def _reassigned(turn: _Turn, event: Event[ThreadReassignedV1]) -> Decision:
    data, thread = event.data, turn.thread
    if thread.reassigned_at is None or (data.at, data.seat_id) > (thread.reassigned_at, thread.reassigned_seat_id):
        before = thread.audience
        thread.reassigned_at, thread.reassigned_seat_id = data.at, data.seat_id
        thread.changes.thread = True
        _publish_audience_unless(turn, before, data.at)
    return turn.applied()


def _publish_audience_unless(turn: _Turn, before: object, at: datetime) -> None:
    """Publish who is told about the thread, if that is no longer as `before`; nothing until the first InMail (R21)."""
    thread, audience = turn.thread, turn.thread.audience
    if audience is not None and audience != before:
        turn.publish(
            ThreadAudienceChangedV1(
                thread_id=thread.thread_id,
                owner_seat_id=audience.owner_seat_id,
                follower_seat_ids=audience.follower_seat_ids,
                at=at,
                thread_version=turn.next_version(),
            ),
            at,
        )


_RULES: Final[dict[type[EventData], Callable[[_Turn, Event[Any]], Decision]]] = {
    InmailScheduledV1: _scheduled,
    InmailSentV1: _sent,
    InmailUndeliveredV1: _undelivered,
    InmailWithdrawnV1: _withdrawn,
    ReplySentV1: _reply_sent,
    ReplyDraftedV1: _reply_drafted,
    RecruiterMessageSentV1: _recruiter_message_sent,
    ThreadFollowedV1: _followed,
    ThreadUnfollowedV1: _unfollowed,
    ThreadReassignedV1: _reassigned,
}
