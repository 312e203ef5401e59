"""The rules of the inbox: what a thread's facts add up to, and what of it a recruiter is shown.

Pure: every function depends on its arguments alone; `learn_fact` and `learn_outcome` change the thread they are given
and nothing else. A thread's own facts come numbered and in order; outcomes come on another topic, so one whose reply
the thread has not seen yet has to wait (`is_reached`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from shared.events import (
    INSTANT_MIN,
    Candidate,
    Choice,
    EventData,
    FollowUpCancelledV1,
    InmailKind,
    InmailStatus,
    InmailStatusChangedV1,
    Outcome,
    OutcomeDecidedV1,
    OutcomeSource,
    OutcomeUnchangedV1,
    RecruiterMessageAcceptedV1,
    RecruiterMessageRejectedV1,
    ReplyDraftChangedV1,
    ReplyRecordedV1,
    ThreadAudienceChangedV1,
    ThreadLockedV1,
    ThreadStateV1,
    ThreadStatus,
    ThreadUnlockedV1,
)
from shared.rules import CREDIT_WINDOW, UNKNOWN_CANDIDATE
from shared.text import known_name

Phase = Literal["scheduled", "awaiting_reply", "closed"]
"""Where a thread without a human reply stands."""
CannotReply = Literal["THREAD_LOCKED", "AWAITING_REPLY"]

_DAY: Final = timedelta(days=1)
# More outcomes than any thread will have: keeps the two numbers of a state apart in one.
_OUTCOMES_PER_THREAD_MAX: Final = 1 << 20


@dataclass(slots=True)
class Inmail:
    """What is known of an InMail: a set of facts, each with its event time, None while it is not known."""

    inmail_id: str
    thread_id: str
    contract_id: str
    seat_id: str
    kind: InmailKind
    automated: bool
    credit_cost: int
    scheduled_at: datetime | None = None
    sent_at: datetime | None = None
    undelivered_at: datetime | None = None
    withdrawn_at: datetime | None = None
    cancelled_at: datetime | None = None

    @property
    def age(self) -> tuple[datetime, str]:
        """Orders the InMails of a thread, the newest last; one of which only the end is known comes first."""
        told = (at for at in (self.scheduled_at, self.sent_at) if at is not None)
        return max(told, default=INSTANT_MIN), self.inmail_id

    @property
    def awaits_reply(self) -> bool:
        """Whether it lies with the candidate: sent, and neither bounced nor taken back (R17, R18, R30)."""
        return self.sent_at is not None and self.undelivered_at is None and self.withdrawn_at is None

    @property
    def is_scheduled(self) -> bool:
        """Whether it is still to be sent."""
        return self.sent_at is self.undelivered_at is self.withdrawn_at is self.cancelled_at is None

    @property
    def counts_as_sent(self) -> bool:
        """Whether it counts in rates: a withdrawn one does, one that bounced does not (R17, R18)."""
        return self.sent_at is not None and self.undelivered_at is None


@dataclass(slots=True)
class Thread:
    """What the facts of a thread add up to. Without a `contract_id` nothing but rejected messages is known of it."""

    thread_id: str
    version: int = 0
    contract_id: str | None = None
    candidate_id: str | None = None
    candidate_name: str | None = None
    named_at: datetime | None = None
    locale: str | None = None
    located_at: datetime | None = None
    owner_seat_id: str | None = None
    phase: Phase = "closed"
    last_inmail_at: datetime | None = None
    first_response_at: datetime | None = None
    locked: bool = False
    draft_choice: Choice | None = None
    outcome_version: int = 0
    outcome: Outcome | None = None
    outcome_source: OutcomeSource | None = None
    inmails: dict[str, Inmail] = field(default_factory=dict)

    @property
    def status(self) -> ThreadStatus | None:
        """The thread in one word; None while no InMail of it is known."""
        if self.contract_id is None:
            return None
        if self.outcome is not None:
            return self.outcome
        return self.phase if self.first_response_at is None else "responded"

    @property
    def state_number(self) -> int:
        """A number for this state among all of the thread's: equal only for the same facts and the same outcome."""
        return self.version * _OUTCOMES_PER_THREAD_MAX + self.outcome_version


def cannot_reply(*, locked: bool, first_response_at: datetime | None) -> CannotReply | None:
    """Why a recruiter's message would be rejected now (R4, R20), None if it would not."""
    if locked:
        return "THREAD_LOCKED"
    return "AWAITING_REPLY" if first_response_at is None else None


def thread_state(thread: Thread) -> ThreadStateV1 | None:
    """What is published of a thread; None while no InMail of it is known."""
    status = thread.status
    if (
        status is None
        or thread.contract_id is None
        or thread.owner_seat_id is None
        or thread.candidate_id is None
        or thread.last_inmail_at is None
    ):
        return None
    return ThreadStateV1(
        thread_id=thread.thread_id,
        contract_id=thread.contract_id,
        seat_id=thread.owner_seat_id,
        candidate=Candidate(id=thread.candidate_id, name=thread.candidate_name or UNKNOWN_CANDIDATE),
        status=status,
        locked=thread.locked,
        can_reply=cannot_reply(locked=thread.locked, first_response_at=thread.first_response_at) is None,
        last_inmail_at=thread.last_inmail_at,
        first_response_at=thread.first_response_at,
        outcome_version=thread.outcome_version,
        thread_version=thread.version,
    )


# The thread's own facts


def learn_fact(thread: Thread, data: Any, *, redriven: bool = False) -> bool:
    """Add the next conversation event to a thread; False for a number that the thread has had already.

    A `redriven` one may have been given up at its turn: of what it tells, all is taken that newer ones cannot have
    overtaken.
    """
    late = data.thread_version <= thread.version
    if late and not redriven:
        return False
    if not late:
        thread.version = data.thread_version
    if not late or type(data) in _ADD_UP:
        _LEARN[type(data)](thread, data)
    return True


def _learn_status(thread: Thread, data: InmailStatusChangedV1) -> None:
    inmail = thread.inmails.get(data.inmail_id)
    if inmail is None:
        inmail = thread.inmails[data.inmail_id] = _described(data)
    elif data.status == "sent":
        # What was sent says for certain whose it is and what it costs; a schedule only announced it.
        inmail.contract_id, inmail.seat_id, inmail.credit_cost = data.contract_id, data.seat_id, data.credit_cost
        inmail.kind, inmail.automated = data.kind, data.automated
    _set_status(inmail, data.status, data.at)
    if data.sent_at is not None:
        inmail.sent_at = data.sent_at
    _learn_party(thread, inmail, data)
    thread.phase, thread.last_inmail_at = summary(thread.inmails.values())


def _described(data: InmailStatusChangedV1) -> Inmail:
    return Inmail(
        data.inmail_id,
        data.thread_id,
        data.contract_id,
        data.seat_id,
        data.kind,
        data.automated,
        data.credit_cost,
    )


def _set_status(inmail: Inmail, status: InmailStatus, at: datetime) -> None:
    if status == "sent":
        inmail.sent_at = at
    elif status == "scheduled":
        inmail.scheduled_at = at
    elif status == "undelivered":
        inmail.undelivered_at = at
    elif status == "withdrawn":
        inmail.withdrawn_at = at
    else:
        inmail.cancelled_at = at


def _learn_party(thread: Thread, inmail: Inmail, data: InmailStatusChangedV1) -> None:
    """Who talks with whom. The newest InMail decides, as it was sent, in whatever order they come.

    Of names and locales it is the newest one that gives any.
    """
    candidate = data.candidate
    newest = max(thread.inmails.values(), key=lambda known: known.age)
    thread.contract_id = newest.contract_id
    if inmail is newest:
        thread.candidate_id = candidate.id
    if thread.owner_seat_id is None:
        thread.owner_seat_id = data.seat_id
    if data.status not in {"scheduled", "sent"}:
        return  # it names the candidate as its InMail did, however long ago
    name, locale, at = known_name(candidate.name), candidate.locale, data.at
    if name and (thread.named_at is None or (at, name) > (thread.named_at, thread.candidate_name or "")):
        thread.candidate_name, thread.named_at = name, at
    if locale and (thread.located_at is None or (at, locale) > (thread.located_at, thread.locale or "")):
        thread.locale, thread.located_at = locale, at


def summary(inmails: Iterable[Inmail]) -> tuple[Phase, datetime | None]:
    """Where the InMails leave a thread that nobody has answered, and the time of the newest one that counts.

    That is the newest one the candidate has; else the newest that was delivered at all; else the newest known.
    """
    awaiting, scheduled, delivered, known = [], [], [], []
    for inmail in inmails:
        if inmail.awaits_reply and inmail.sent_at is not None:
            awaiting.append(inmail.sent_at)
        elif inmail.counts_as_sent and inmail.sent_at is not None:
            delivered.append(inmail.sent_at)
        first_at = inmail.scheduled_at or inmail.sent_at
        if first_at is None:
            first_at = min(
                at for at in (inmail.undelivered_at, inmail.withdrawn_at, inmail.cancelled_at) if at is not None
            )
        known.append(first_at)
        if inmail.is_scheduled:
            scheduled.append(first_at)
    if awaiting:
        return "awaiting_reply", max(awaiting)
    newest = max(delivered or scheduled or known, default=None)
    return ("scheduled" if scheduled else "closed"), newest


def _learn_reply(thread: Thread, data: ReplyRecordedV1) -> None:
    if data.content == "automated":
        return  # nobody has answered: the thread goes on waiting (R9)
    if thread.first_response_at is None or data.sent_at < thread.first_response_at:
        thread.first_response_at = data.sent_at


def _learn_lock(thread: Thread, data: ThreadLockedV1 | ThreadUnlockedV1) -> None:
    thread.locked = isinstance(data, ThreadLockedV1)


def _learn_draft(thread: Thread, data: ReplyDraftChangedV1) -> None:
    thread.draft_choice = data.choice


def _learn_audience(thread: Thread, data: ThreadAudienceChangedV1) -> None:
    thread.owner_seat_id = data.owner_seat_id


def _learn_nothing(_thread: Thread, _data: EventData) -> None:
    """The fact stands in the timeline and changes no state."""


_LEARN: Final[dict[type[EventData], Callable[[Thread, Any], None]]] = {
    InmailStatusChangedV1: _learn_status,
    ReplyRecordedV1: _learn_reply,
    ReplyDraftChangedV1: _learn_draft,
    ThreadLockedV1: _learn_lock,
    ThreadUnlockedV1: _learn_lock,
    ThreadAudienceChangedV1: _learn_audience,
    FollowUpCancelledV1: _learn_nothing,
    RecruiterMessageAcceptedV1: _learn_nothing,
    RecruiterMessageRejectedV1: _learn_nothing,
}

_ADD_UP: Final = frozenset({InmailStatusChangedV1, ReplyRecordedV1})
"""Facts that end alike in whatever order they come; of the others the newest alone counts."""


# Outcomes


def is_reached(thread: Thread, data: OutcomeDecidedV1 | OutcomeUnchangedV1) -> bool:
    """Whether the thread has seen the reply that an outcome is about; before that the outcome has to wait."""
    return data.thread_version <= thread.version


def learn_outcome(thread: Thread, data: OutcomeDecidedV1 | OutcomeUnchangedV1) -> bool:
    """Take an outcome over if it is a newer version than the standing one; else False."""
    if not isinstance(data, OutcomeDecidedV1) or data.version <= thread.outcome_version:
        return False
    thread.outcome_version, thread.outcome, thread.outcome_source = data.version, data.outcome, data.source
    return True


# What a recruiter is shown


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long a thread has waited: `age` since its newest InMail, whole `days_left` in the credit window, rounded up.

    `days_left` is None and `lapsed` False unless the thread awaits a reply: else there is no credit to wait for.
    """

    age: timedelta
    days_left: int | None
    lapsed: bool


def waiting(*, status: ThreadStatus, last_inmail_at: datetime, now: datetime) -> Waiting:
    """How long a thread has waited at `now` (R30). Never less than no time: another machine's clock may be ahead."""
    age = max(now - last_inmail_at, timedelta())
    if status != "awaiting_reply":
        return Waiting(age, None, lapsed=False)
    left = max(CREDIT_WINDOW - age, timedelta())
    return Waiting(age, -(-left // _DAY), lapsed=age > CREDIT_WINDOW)
