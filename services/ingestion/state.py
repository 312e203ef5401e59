"""What ingestion knows of a thread: facts, and what follows from them. Pure.

Facts are kept as sets and everything is derived from them by event time, so that the order of arrival leaves no trace.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from shared.events import Choice, InmailKind, Template
from shared.text import known_name

SKEW_MAX: Final = timedelta(minutes=5)
"""How far the platform's clocks may be apart: a reply this much before its InMail is simultaneous (R22)."""


@dataclass(slots=True)
class Inmail:
    """An InMail: what it is, and the instants of the facts known of it. Facts are added, never taken back.

    What `sent` says of it stands over what `scheduled` said, because it is what went out.
    """

    inmail_id: str
    contract_id: str
    seat_id: str
    candidate_id: str
    locale: str | None
    time_zone: str | None
    kind: InmailKind
    automated: bool
    credit_cost: int
    scheduled_at: datetime | None = None
    sent_at: datetime | None = None
    undelivered_at: datetime | None = None
    withdrawn_at: datetime | None = None
    cancelled_at: datetime | None = None
    scheduled_name: str | None = None
    sent_name: str | None = None

    @property
    def first_known_at(self) -> datetime:
        """When it came into being: the earlier of being scheduled and being sent."""
        return min(at for at in (self.scheduled_at, self.sent_at) if at is not None)

    @property
    def candidate_name(self) -> str | None:
        """The name by which the candidate is addressed."""
        return known_name(self.sent_name) or known_name(self.scheduled_name)

    def cancellable(self, at: datetime) -> bool:
        """Whether a reply at `at` makes it pointless: a follow-up that was waiting then, and did not go out (R16)."""
        return (
            self.kind == "follow_up"
            and self.scheduled_at is not None
            and self.scheduled_at <= at
            and self.sent_at is None
            and self.undelivered_at is None
            and self.withdrawn_at is None
            and self.cancelled_at is None
        )


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A refusal that is not its template for any name known: the words of a name still to come, or the candidate's own.

    Only a digest of the normalised text is kept: enough to recognise it under another name, too little to read it.
    """

    template: Template
    digest: str


@dataclass(slots=True)
class Reply:
    """A human reply, and what it says about the lock."""

    reply_id: str
    sent_at: datetime
    inmail_id: str
    locks: bool
    unmatched: Unmatched | None = None

    @property
    def order(self) -> tuple[datetime, str]:
        """Its place among the replies of the thread (R8)."""
        return self.sent_at, self.reply_id


@dataclass(frozen=True, slots=True)
class Following:
    """The newest word on whether a seat wants the notifications of the thread."""

    at: datetime
    following: bool


@dataclass(frozen=True, slots=True)
class Audience:
    """Who is told about the thread."""

    owner_seat_id: str
    follower_seat_ids: tuple[str, ...]


@dataclass(slots=True)
class Changes:
    """What has to be written back."""

    thread: bool = False
    inmail_ids: set[str] = field(default_factory=set)
    replies: dict[str, Reply] = field(default_factory=dict)
    seat_ids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Thread:
    """Everything known of a thread. `replies` are in order of (sent_at, reply_id)."""

    thread_id: str
    version: int = 0
    locked: bool = False
    reassigned_seat_id: str | None = None
    reassigned_at: datetime | None = None
    draft_choice: Choice | None = None
    drafted_at: datetime | None = None
    inmails: dict[str, Inmail] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)
    followings: dict[str, Following] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)

    @property
    def newest_reply(self) -> Reply | None:
        """The newest human reply."""
        return self.replies[-1] if self.replies else None

    @property
    def selected(self) -> Choice | None:
        """The smart reply picked in the compose view: the newest draft's, none once a reply is as new (R2)."""
        newest = self.newest_reply
        if self.drafted_at is None or (newest is not None and newest.sent_at >= self.drafted_at):
            return None
        return self.draft_choice

    @property
    def audience(self) -> Audience | None:
        """The owner (newest reassignment, else the seat of the first InMail) and followers; None before an InMail."""
        if not self.inmails:
            return None
        owner = self.reassigned_seat_id
        if owner is None and len(self.inmails) == 1:
            (only,) = self.inmails.values()
            owner = only.seat_id
        elif owner is None:
            owner = min(self.inmails.values(), key=lambda inmail: (inmail.first_known_at, inmail.inmail_id)).seat_id
        followers = sorted(seat_id for seat_id, word in self.followings.items() if word.following and seat_id != owner)
        return Audience(owner, tuple(followers))

    def add_reply(self, reply: Reply) -> None:
        """Put a reply in its place."""
        insort(self.replies, reply, key=lambda known: known.order)
        self.changes.replies[reply.reply_id] = reply

    def first_reply_from(self, at: datetime) -> Reply | None:
        """Give the first human reply at or after `at`."""
        place = bisect_left(self.replies, at, key=lambda known: known.sent_at)
        return self.replies[place] if place < len(self.replies) else None

    def candidate_name(self, inmail: Inmail) -> str | None:
        """The name to tell of an InMail's candidate: its own, or else that of the newest other one that has a name."""
        others = sorted(self.inmails.values(), key=lambda known: (known.first_known_at, known.inmail_id), reverse=True)
        return next((known.candidate_name for known in (inmail, *others) if known.candidate_name is not None), None)

    def names_by(self, at: datetime) -> Iterator[str]:
        """Every name that an InMail has carried by `at`: the names a reply of that instant could have been given.

        Names that came later don't count, so that a reply is read alike however late it arrives.
        """
        limit = at + SKEW_MAX
        for inmail in self.inmails.values():
            if inmail.scheduled_name is not None and inmail.scheduled_at is not None and inmail.scheduled_at <= limit:
                yield inmail.scheduled_name
            if inmail.sent_name is not None and inmail.sent_at is not None and inmail.sent_at <= limit:
                yield inmail.sent_name
