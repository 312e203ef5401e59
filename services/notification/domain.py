"""Who is told what about a thread's outcomes, in which order, and what is taken back (R26, R27, R28).

Each outcome event asks for one request per recipient and channel. Requests to the same recipient and channel about
the same thread are numbered; a changed outcome supersedes what was told before and retracts what still waits.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from typing import Final, Literal, NamedTuple

from services.notification.quiet_hours import QuietHours, deliver_after, zone_named
from shared.events import (
    Channel,
    Digest,
    Event,
    NotificationRequestedV1,
    NotificationRetractedV1,
    OutcomeDecidedV1,
    OutcomeUnchangedV1,
    Recipient,
    SeatAssignedV1,
    SeatPreferencesSetV1,
    derived_id,
    format_instant,
)
from shared.rules import UNKNOWN_CANDIDATE
from shared.text import known_name

Kind = Literal["candidate_interested", "candidate_declined", "candidate_replied"]
OutcomeData = OutcomeDecidedV1 | OutcomeUnchangedV1

CHANNELS: Final[tuple[Channel, ...]] = ("in_thread", "push", "email", "webhook")
LOCALE: Final = "en"
RETRACTION_REASON: Final = "OUTCOME_CHANGED"

_TEXTS: Final[dict[Kind, str]] = {
    "candidate_interested": (
        " is interested in starting a conversation. Please follow up soon to continue the conversation."
    ),
    "candidate_declined": " declined your message.",
    "candidate_replied": " replied to your message.",
}


@dataclass(frozen=True, slots=True)
class Audience:
    """Who is told about a thread from `thread_version` on."""

    thread_version: int
    owner_seat_id: str
    follower_seat_ids: tuple[str, ...]
    changed_at: datetime

    @property
    def recipients(self) -> list[str]:
        """The owner and the followers, each once, in order of their ids."""
        return sorted({self.owner_seat_id, *self.follower_seat_ids})


@dataclass(frozen=True, slots=True)
class Preferences:
    """How a seat wants to be told, besides in the thread."""

    channels: tuple[str, ...]
    quiet_hours: QuietHours | None
    digest: Digest
    set_at: datetime


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where a seat is. `time_zone` is None where none was given, or none that exists: then its clock is UTC's."""

    time_zone: str | None
    assigned_at: datetime


@dataclass(slots=True)
class Seats:
    """What is known of seats; of two assignments or preferences the newest stands, of equal ones the last to come."""

    assignments: dict[str, Assignment] = field(default_factory=dict)
    preferences: dict[str, Preferences] = field(default_factory=dict)
    changed_assignments: set[str] = field(default_factory=set)
    changed_preferences: set[str] = field(default_factory=set)

    def assign(self, data: SeatAssignedV1) -> bool:
        """Take an assignment; whether its time zone can be used."""
        usable = not data.time_zone or zone_named(data.time_zone) is not None
        known = self.assignments.get(data.seat_id)
        if known is None or known.assigned_at <= data.assigned_at:
            self.assignments[data.seat_id] = Assignment((data.time_zone or None) if usable else None, data.assigned_at)
            self.changed_assignments.add(data.seat_id)
        return usable

    def prefer(self, data: SeatPreferencesSetV1) -> None:
        """Take preferences."""
        known = self.preferences.get(data.seat_id)
        if known is not None and known.set_at > data.set_at:
            return
        quiet = data.quiet_hours
        self.preferences[data.seat_id] = Preferences(
            data.channels,
            None if quiet is None else QuietHours(time.fromisoformat(quiet.start), time.fromisoformat(quiet.end)),
            data.digest,
            data.set_at,
        )
        self.changed_preferences.add(data.seat_id)

    def timing(self, seat_id: str, channel: Channel, responded_at: datetime) -> "Timing":
        """Say when a request to this seat goes out: at once in the thread, elsewhere as the seat wants it (R27)."""
        preferences = self.preferences.get(seat_id)
        if channel == "in_thread" or preferences is None:
            return _AT_ONCE
        assignment = self.assignments.get(seat_id)
        zone = zone_named(assignment.time_zone) if assignment is not None and assignment.time_zone else None
        due = deliver_after(responded_at, quiet=preferences.quiet_hours, digest=preferences.digest, zone=zone or UTC)
        if due is None or preferences.digest == "off":
            return Timing(due, None)
        return Timing(due, f"{seat_id}:{channel}:{format_instant(due)}")

    def channels_of(self, seat_id: str) -> Iterable[Channel]:
        """Give the channels on which this seat is told; one without known preferences only in the thread (R26)."""
        preferences = self.preferences.get(seat_id)
        if preferences is None:
            return CHANNELS[:1]
        return [channel for channel in CHANNELS if channel == "in_thread" or channel in preferences.channels]


class Timing(NamedTuple):
    """When a request goes out, and with which others."""

    deliver_after: datetime | None
    digest_key: str | None


_AT_ONCE: Final = Timing(None, None)


class Newest(NamedTuple):
    """The newest request to a recipient on a channel about a thread, and the newest that told an outcome."""

    version: int
    outcome_notification_id: str | None


class Deferred(NamedTuple):
    """A request that waits and was not retracted."""

    notification_id: str
    seat_id: str
    channel: Channel
    version: int
    deliver_after: datetime


@dataclass(slots=True)
class Thread:
    """A thread as notification knows it. `audiences` are in order of their versions.

    `newest`, `deferred` and `made` (ids of requests) are as complete as the outcomes to be decided need them.
    """

    thread_id: str
    thread_version: int = 0
    outcome_version: int = 0
    notified: bool = False
    holding: bool = False
    audiences: list[Audience] = field(default_factory=list)
    newest: dict[tuple[str, str], Newest] = field(default_factory=dict)
    deferred: list[Deferred] = field(default_factory=list)
    made: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and what tells its event apart from the others of the same cause."""

    data: NotificationRequestedV1
    index: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What an outcome event brings about, in order: retractions, then requests."""

    retractions: list[NotificationRetractedV1]
    requests: list[Request]


def decide(thread: Thread, seats: Seats, event: Event[OutcomeData]) -> Decision | None:
    """Decide an outcome event that the view of the thread has reached; None for one that was decided before."""
    data = event.data
    recipients = recipients_of(thread, data)
    if _is_repeat(thread, event, recipients):
        return None
    kind = _kind_of(data)
    retractions = [] if kind == "candidate_replied" else _retract(thread, data.decided_at)
    text = text_of(kind, data.candidate.name)
    requests = []
    for place, seat_id in enumerate(recipients):
        for channel in seats.channels_of(seat_id):
            timing = seats.timing(seat_id, channel, data.responded_at)
            made = _request(thread, event, seat_id=seat_id, channel=channel, kind=kind, text=text, timing=timing)
            requests.append(Request(made, place * len(CHANNELS) + CHANNELS.index(channel)))
    if isinstance(data, OutcomeDecidedV1):
        thread.outcome_version = data.version
    thread.notified = True
    return Decision(retractions, requests)


def recipients_of(thread: Thread, data: OutcomeData) -> list[str]:
    """Give the audience at the version of the reply; for a human's correction, the newest one known up to then.

    A thread without an audience should not be: then whoever sent the InMail is told, rather than nobody.
    """
    corrected_at = data.decided_at if data.source == "human" and isinstance(data, OutcomeDecidedV1) else None
    for audience in reversed(thread.audiences):
        if audience.thread_version <= data.thread_version or (
            corrected_at is not None and audience.changed_at <= corrected_at
        ):
            return audience.recipients
    return [data.seat_id]


def notification_id(event: Event[OutcomeData], seat_id: str, channel: Channel) -> str:
    """Name the request that an outcome event causes for a recipient and channel: the same in every run."""
    return derived_id(event.source, event.id, f"{channel}:{seat_id}", 0)


def text_of(kind: Kind, name: str | None) -> str:
    """Write a notification's text."""
    known = known_name(name)
    return (UNKNOWN_CANDIDATE if known is None else f"Candidate {known}") + _TEXTS[kind]


def _is_repeat(thread: Thread, event: Event[OutcomeData], recipients: list[str]) -> bool:
    if isinstance(event.data, OutcomeDecidedV1):
        return event.data.version <= thread.outcome_version
    return notification_id(event, recipients[0], "in_thread") in thread.made


def _kind_of(data: OutcomeData) -> Kind:
    if isinstance(data, OutcomeUnchangedV1) or data.previous == data.outcome:
        return "candidate_replied"
    return "candidate_interested" if data.outcome == "accepted" else "candidate_declined"


def _retract(thread: Thread, decided_at: datetime) -> list[NotificationRetractedV1]:
    """Take back what would be delivered only after the outcome has changed, whatever it says and whoever it is for."""
    stale = sorted(d for d in thread.deferred if decided_at < d.deliver_after)
    thread.deferred = [d for d in thread.deferred if decided_at >= d.deliver_after]
    return [
        NotificationRetractedV1(
            notification_id=d.notification_id,
            recipient=Recipient(seat_id=d.seat_id),
            channel=d.channel,
            subject_key=thread.thread_id,
            version=d.version,
            reason=RETRACTION_REASON,
        )
        for d in stale
    ]


def _request(
    thread: Thread,
    event: Event[OutcomeData],
    *,
    seat_id: str,
    channel: Channel,
    kind: Kind,
    text: str,
    timing: Timing,
) -> NotificationRequestedV1:
    made_id = notification_id(event, seat_id, channel)
    before = thread.newest.get((seat_id, channel), Newest(0, None))
    tells_outcome = kind != "candidate_replied"
    version = before.version + 1
    thread.newest[seat_id, channel] = Newest(version, made_id if tells_outcome else before.outcome_notification_id)
    thread.made.add(made_id)
    if timing.deliver_after is not None:
        thread.deferred.append(Deferred(made_id, seat_id, channel, version, timing.deliver_after))
    return NotificationRequestedV1(
        notification_id=made_id,
        recipient=Recipient(seat_id=seat_id),
        channel=channel,
        kind=kind,
        text=text,
        locale=LOCALE,
        thread_id=thread.thread_id,
        inmail_id=event.data.inmail_id,
        subject_key=thread.thread_id,
        version=version,
        supersedes=before.outcome_notification_id if tells_outcome else None,
        deliver_after=timing.deliver_after,
        digest_key=timing.digest_key,
    )
