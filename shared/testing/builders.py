"""Upstream events for tests: every function makes a valid event, and a test names only what it is about.

Times count from `START`; `after(days=28)` is the instant that far from it. Two calls with the same arguments make the
same event, with the same id; whatever differs makes another id, so a duplicate is `again = event` and a conflict is
made by `id=event.id`.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from shared.events import (
    CAP_MULTIPLE_DEFAULT,
    Candidate,
    CandidateErasedV1,
    Choice,
    ContractEndedV1,
    ContractStartedV1,
    CreditsRefreshedV1,
    Digest,
    Event,
    EventData,
    InmailKind,
    InmailScheduledV1,
    InmailSentV1,
    InmailUndeliveredV1,
    InmailWithdrawnV1,
    PushedChannel,
    QuietHours,
    RecruiterMessageSentV1,
    ReplyDraftedV1,
    ReplySentV1,
    SeatAssignedV1,
    SeatPreferencesSetV1,
    Template,
    ThreadFollowedV1,
    ThreadReassignedV1,
    ThreadUnfollowedV1,
    content_hash,
    encode,
    format_instant,
    key_of,
    time_of,
    to_instant,
)
from shared.events.event import STRUCTURED_HEADERS

D = TypeVar("D", bound=EventData)

START: Final = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SOURCE: Final = "/messaging-platform"
ADA: Final = Candidate(id="candidate-1", name="Ada", locale="en", time_zone="Europe/London")


def after(
    *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0, milliseconds: float = 0
) -> datetime:
    """Return the instant that far after `START`."""
    return to_instant(
        START + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    )


def event(
    data: D,
    *,
    time: datetime | None = None,
    id: str | None = None,  # noqa: A002 - the attribute's name in CloudEvents
    source: str = SOURCE,
    traceparent: str | None = None,
    topic: str | None = None,
) -> Event[D]:
    """Put data into an envelope.

    `time` counts where the data has no time of its own, `topic` is needed where that re-keys the type.
    """
    moment = to_instant(time or time_of(data) or START)
    made: Event[D] = Event(
        id=id or "",
        source=source,
        type=data.type,
        subject=key_of(data, topic),
        time=moment,
        data=data,
        traceparent=traceparent,
    )
    return made if id else with_id(made)


def with_id(made: Event[D]) -> Event[D]:
    """Give an event the id that follows from its content and time."""
    return replace(made, id=f"{made.type}/{content_hash(made).hex()[:12]}/{format_instant(made.time)}")


def record(made: Event[EventData]) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Return key, value and headers of the Kafka record that holds the event, in structured mode."""
    return made.subject.encode(), encode(made), list(STRUCTURED_HEADERS)


def binary_record(made: Event[EventData]) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Return key, value and headers of the Kafka record that holds the event, in binary mode."""
    attributes = {
        "specversion": "1.0",
        "id": made.id,
        "source": made.source,
        "type": made.type,
        "subject": made.subject,
        "time": format_instant(made.time),
        "traceparent": made.traceparent,
        "causeid": made.causeid,
        "causesource": made.causesource,
        "rootid": made.rootid,
        "receivedtime": None if made.receivedtime is None else format_instant(made.receivedtime),
    }
    headers = [(f"ce_{name}", text.encode()) for name, text in attributes.items() if text is not None]
    value = made.data.model_dump_json(exclude_none=True).encode()
    return made.subject.encode(), value, [("content-type", b"application/json"), *headers]


def scheduled(
    *,
    inmail_id: str = "inmail-1",
    thread_id: str = "thread-1",
    contract_id: str = "contract-1",
    seat_id: str = "seat-1",
    candidate: Candidate = ADA,
    kind: InmailKind = "initial",
    automated: bool = False,
    credit_cost: int = 1,
    deliver_at: datetime | None = None,
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[InmailScheduledV1]:
    """`inmail.scheduled.v1`: scheduled `at`, for delivery an hour later unless said otherwise."""
    data = InmailScheduledV1(
        inmail_id=inmail_id,
        thread_id=thread_id,
        contract_id=contract_id,
        seat_id=seat_id,
        candidate=candidate,
        kind=kind,
        automated=automated,
        credit_cost=credit_cost,
        deliver_at=deliver_at or at + timedelta(hours=1),
    )
    return event(data, time=at, id=id)


def sent(
    *,
    inmail_id: str = "inmail-1",
    thread_id: str = "thread-1",
    contract_id: str = "contract-1",
    seat_id: str = "seat-1",
    candidate: Candidate = ADA,
    kind: InmailKind = "initial",
    automated: bool = False,
    credit_cost: int = 1,
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[InmailSentV1]:
    """`inmail.sent.v1`."""
    data = InmailSentV1(
        inmail_id=inmail_id,
        thread_id=thread_id,
        contract_id=contract_id,
        seat_id=seat_id,
        candidate=candidate,
        kind=kind,
        automated=automated,
        credit_cost=credit_cost,
        sent_at=at,
    )
    return event(data, id=id)


def undelivered(
    *,
    inmail_id: str = "inmail-1",
    thread_id: str = "thread-1",
    reason: str = "mailbox_closed",
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[InmailUndeliveredV1]:
    """`inmail.undelivered.v1`."""
    return event(InmailUndeliveredV1(inmail_id=inmail_id, thread_id=thread_id, reason=reason, failed_at=at), id=id)


def withdrawn(
    *,
    inmail_id: str = "inmail-1",
    thread_id: str = "thread-1",
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[InmailWithdrawnV1]:
    """`inmail.withdrawn.v1`."""
    return event(InmailWithdrawnV1(inmail_id=inmail_id, thread_id=thread_id, withdrawn_at=at), id=id)


def drafted(
    *,
    thread_id: str = "thread-1",
    candidate_id: str = "candidate-1",
    choice: Choice | None = None,
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[ReplyDraftedV1]:
    """`reply.drafted.v1`."""
    data = ReplyDraftedV1(thread_id=thread_id, candidate_id=candidate_id, choice=choice, drafted_at=at)
    return event(data, id=id)


def reply(
    *,
    reply_id: str = "reply-1",
    thread_id: str = "thread-1",
    candidate_id: str = "candidate-1",
    in_reply_to: str | None = None,
    choice: Choice | None = None,
    template: Template | None = None,
    text: str = "",
    attachments: int = 0,
    automated: bool = False,
    at: datetime | None = None,
    id: str | None = None,  # noqa: A002
) -> Event[ReplySentV1]:
    """`reply.sent.v1`, a day after `START` unless said otherwise. Without choice and text it is an empty response."""
    data = ReplySentV1(
        reply_id=reply_id,
        thread_id=thread_id,
        candidate_id=candidate_id,
        in_reply_to=in_reply_to,
        choice=choice,
        template=template,
        text=text,
        attachments=attachments,
        automated=automated,
        sent_at=after(days=1) if at is None else at,
    )
    return event(data, id=id)


def recruiter_message(
    *,
    message_id: str = "message-1",
    thread_id: str = "thread-1",
    seat_id: str = "seat-1",
    text: str = "Shall we talk on Monday?",
    at: datetime | None = None,
    id: str | None = None,  # noqa: A002
) -> Event[RecruiterMessageSentV1]:
    """`recruiter_message.sent.v1`, two days after `START` unless said otherwise."""
    moment = after(days=2) if at is None else at
    data = RecruiterMessageSentV1(
        message_id=message_id, thread_id=thread_id, seat_id=seat_id, text=text, sent_at=moment
    )
    return event(data, id=id)


def followed(
    *,
    thread_id: str = "thread-1",
    seat_id: str = "seat-2",
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[ThreadFollowedV1]:
    """`thread.followed.v1`."""
    return event(ThreadFollowedV1(thread_id=thread_id, seat_id=seat_id, at=at), id=id)


def unfollowed(
    *,
    thread_id: str = "thread-1",
    seat_id: str = "seat-2",
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[ThreadUnfollowedV1]:
    """`thread.unfollowed.v1`."""
    return event(ThreadUnfollowedV1(thread_id=thread_id, seat_id=seat_id, at=at), id=id)


def reassigned(
    *,
    thread_id: str = "thread-1",
    seat_id: str = "seat-2",
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[ThreadReassignedV1]:
    """`thread.reassigned.v1`."""
    return event(ThreadReassignedV1(thread_id=thread_id, seat_id=seat_id, at=at), id=id)


def contract_started(
    *,
    contract_id: str = "contract-1",
    name: str = "Contoso",
    monthly_allotment: int = 10,
    cap_multiple: int = CAP_MULTIPLE_DEFAULT,
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[ContractStartedV1]:
    """`contract.started.v1`."""
    data = ContractStartedV1(
        contract_id=contract_id,
        name=name,
        monthly_allotment=monthly_allotment,
        cap_multiple=cap_multiple,
        started_at=at,
    )
    return event(data, id=id)


def credits_refreshed(
    *,
    contract_id: str = "contract-1",
    period: str | None = None,
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[CreditsRefreshedV1]:
    """`credits.refreshed.v1`, of the month in which it happens unless said otherwise."""
    data = CreditsRefreshedV1(contract_id=contract_id, period=period or f"{at:%Y-%m}", refreshed_at=at)
    return event(data, id=id)


def contract_ended(
    *,
    contract_id: str = "contract-1",
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[ContractEndedV1]:
    """`contract.ended.v1`."""
    return event(ContractEndedV1(contract_id=contract_id, ended_at=at), id=id)


def seat_assigned(
    *,
    seat_id: str = "seat-1",
    contract_id: str = "contract-1",
    name: str = "Robin Recruiter",
    locale: str | None = "en",
    time_zone: str | None = "Europe/London",
    monthly_limit: int | None = None,
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[SeatAssignedV1]:
    """`seat.assigned.v1`."""
    data = SeatAssignedV1(
        seat_id=seat_id,
        contract_id=contract_id,
        name=name,
        locale=locale,
        time_zone=time_zone,
        monthly_limit=monthly_limit,
        assigned_at=at,
    )
    return event(data, id=id)


def preferences_set(
    *,
    seat_id: str = "seat-1",
    contract_id: str = "contract-1",
    channels: Iterable[PushedChannel] = ("push",),
    quiet_hours: tuple[str, str] | None = None,
    digest: Digest = "off",
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[SeatPreferencesSetV1]:
    """`seat.preferences_set.v1`; `quiet_hours` are start and end, `HH:MM`."""
    data = SeatPreferencesSetV1(
        seat_id=seat_id,
        contract_id=contract_id,
        channels=tuple(channels),
        quiet_hours=None if quiet_hours is None else QuietHours(start=quiet_hours[0], end=quiet_hours[1]),
        digest=digest,
        set_at=at,
    )
    return event(data, id=id)


def erased(
    *,
    candidate_id: str = "candidate-1",
    at: datetime = START,
    id: str | None = None,  # noqa: A002
) -> Event[CandidateErasedV1]:
    """`candidate.erased.v1`."""
    return event(CandidateErasedV1(candidate_id=candidate_id, erased_at=at), id=id)
