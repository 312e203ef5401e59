"""Whatever comes twice, late or in between: each recipient is told once, in order, and never in quiet hours."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.notification.domain import Seats, Thread
from services.notification.quiet_hours import QuietHours, deliver_after, first_instant, quiet_until, zone_named
from services.notification.service import Round
from shared.events import Digest, Event, NotificationRequestedV1, Outcome, PushedChannel, encode
from shared.stream.effects import Effects
from shared.stream.records import AnyIncoming, Incoming, Position
from shared.testing.builders import START, after, preferences_set, seat_assigned
from shared.testing.conversations import Conversation
from shared.topics import CONTRACT_EVENTS, CONVERSATION_EVENTS, OUTCOME_EVENTS

AnyEvent = Event[Any]
Topics = dict[str, list[AnyEvent]]
Plan = list[tuple[str, AnyEvent]]

SEATS = ("seat-1", "seat-2", "seat-3")
# Clocks that are set by an hour, by half of one, at midnight, over the date line, twice a year, in winter, or never.
ZONES = (
    "UTC", "Europe/Berlin", "Europe/Dublin", "America/New_York", "America/St_Johns", "America/Sao_Paulo",
    "America/Havana", "America/Santiago", "Asia/Kathmandu", "Asia/Beirut", "Asia/Tehran", "Asia/Gaza", "Africa/Cairo",
    "Africa/Casablanca", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Chatham", "Antarctica/Troll",
)  # fmt: skip

seats = st.sampled_from(SEATS)
times = st.integers(0, 24 * 60 - 1).map(lambda minute: time(minute // 60, minute % 60))
quiet_hours = st.builds(QuietHours, times, times)
zones = st.sampled_from(ZONES).map(zone_named)
digests: st.SearchStrategy[Digest] = st.sampled_from(("off", "hourly", "daily"))
pushed: tuple[PushedChannel, ...] = ("push", "email", "webhook")
channels = st.lists(st.sampled_from(pushed), unique=True)


@st.composite
def preferences(draw: st.DrawFn) -> AnyEvent:
    return preferences_set(
        seat_id=draw(seats),
        channels=draw(channels),
        quiet_hours=draw(st.sampled_from((None, ("22:00", "07:00"), ("12:00", "12:30")))),
        digest=draw(digests),
        at=after(hours=draw(st.integers(0, 5))),
    )


@st.composite
def histories(draw: st.DrawFn, *, humans: bool) -> Topics:
    """What the three topics hold of one thread: each in the order in which its writer wrote it."""
    thread = Conversation()
    followers = st.lists(seats, unique=True).map(tuple)
    topics: Topics = {
        CONVERSATION_EVENTS: [thread.status(), thread.audience(follower_seat_ids=draw(followers))],
        OUTCOME_EVENTS: [],
        CONTRACT_EVENTS: [seat_assigned(seat_id=seat, time_zone=draw(st.sampled_from(ZONES))) for seat in SEATS],
    }
    topics[CONTRACT_EVENTS] += draw(st.lists(preferences(), max_size=4))
    for number in range(draw(st.integers(1, 6))):
        at = after(hours=draw(st.integers(0, 48)))
        step = draw(st.sampled_from(("reply", "reply", "audience", "human" if humans else "reply")))
        if step == "audience":
            topics[CONVERSATION_EVENTS].append(thread.audience(draw(seats), follower_seat_ids=draw(followers), at=at))
        elif step == "human" and thread.outcome is not None:
            other: Outcome = "accepted" if thread.outcome == "declined" else "declined"
            newest = next(reversed(thread.replies))
            topics[OUTCOME_EVENTS].append(thread.decided(other, reply_id=newest, source="human", at=at))
        else:
            reply_id = f"reply-{number}"
            topics[CONVERSATION_EVENTS].append(thread.reply(at, reply_id=reply_id))
            outcome: Outcome | None = draw(st.sampled_from(("accepted", "declined", None)))
            if outcome is None and thread.outcome is not None:
                topics[OUTCOME_EVENTS].append(thread.unchanged(reply_id=reply_id))
            else:
                topics[OUTCOME_EVENTS].append(thread.decided(outcome or "accepted", reply_id=reply_id))
    return topics


@st.composite
def merged(draw: st.DrawFn, topics: Topics) -> Plan:
    """The topics' records in some order that keeps each topic's own."""
    left = {topic: list(events) for topic, events in topics.items() if events}
    plan: Plan = []
    while left:
        topic = draw(st.sampled_from(sorted(left)))
        plan.append((topic, left[topic].pop(0)))
        if not left[topic]:
            del left[topic]
    return plan


@st.composite
def with_repeats(draw: st.DrawFn, topics: Topics) -> Topics:
    """The same topics, of the two that nobody screens some stretches twice: as after a writer's restart."""
    repeated = {**topics}
    for topic in (CONVERSATION_EVENTS, OUTCOME_EVENTS):
        events = topics[topic]
        end = draw(st.integers(0, len(events)))
        repeated[topic] = [*events[:end], *events[draw(st.integers(0, end)) : end], *events[end:]]
    return repeated


def run(plan: Sequence[tuple[str, AnyEvent]]) -> list[AnyEvent]:
    """What a plan emits, one record after the other."""
    threads: dict[str, Thread] = {"thread-1": Thread("thread-1")}
    known, waiting, emitted = Seats(), dict[str, list[AnyIncoming]](), list[AnyEvent]()
    for offset, (topic, event) in enumerate(plan):
        effects = Effects("notification")
        work = Round(threads, known, waiting, effects)
        work.take(Incoming(Position(topic, 0, offset), START, event, event.subject.encode(), b"", ()))
        waiting = work.waiting
        emitted += [made for _, made, _ in effects.emitted]
    assert not any(waiting.values())
    return emitted


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_each_outcome_is_told_once_however_the_topics_meet_and_repeat(data: st.DataObject) -> None:
    topics = data.draw(histories(humans=False))
    contracts = [(CONTRACT_EVENTS, event) for event in topics.pop(CONTRACT_EVENTS)]
    plain = run([*contracts, *((topic, event) for topic, events in topics.items() for event in events)])
    shuffled = run([*contracts, *data.draw(merged(data.draw(with_repeats(topics))))])
    assert [encode(event) for event in shuffled] == [encode(event) for event in plain]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_request_per_outcome_recipient_and_channel_numbered_without_gaps(data: st.DataObject) -> None:
    topics = data.draw(histories(humans=True))
    emitted = run(data.draw(merged(data.draw(with_repeats(topics)))))
    requests = [event for event in emitted if isinstance(event.data, NotificationRequestedV1)]
    told = [(event.causeid, event.subject, event.data.channel) for event in requests]
    assert len(told) == len(set(told))
    assert len({event.id for event in emitted}) == len(emitted)
    assert len({event.data.notification_id for event in requests}) == len(requests)
    versions = defaultdict(list)
    for event in requests:
        versions[event.subject, event.data.channel].append(event.data.version)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in versions.values())
    outcomes = {event.id for event in topics[OUTCOME_EVENTS]}
    assert {event.causeid for event in requests if event.data.channel == "in_thread"} == outcomes


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_superseded_and_retracted_is_what_was_told_before(data: st.DataObject) -> None:
    emitted = run(data.draw(merged(data.draw(histories(humans=True)))))
    newest: dict[tuple[str, str], str] = {}
    open_requests: dict[str, NotificationRequestedV1] = {}
    for event in emitted:
        slot = (event.subject, event.data.channel)
        if isinstance(event.data, NotificationRequestedV1):
            changed = event.data.kind != "candidate_replied"
            assert event.data.supersedes == (newest.get(slot) if changed else None)
            if changed:
                newest[slot] = event.data.notification_id
            open_requests[event.data.notification_id] = event.data
        else:
            retracted = open_requests.pop(event.data.notification_id)  # once, and after it was made
            assert (retracted.version, retracted.channel) == (event.data.version, event.data.channel)
            assert retracted.deliver_after is not None
            assert event.time < retracted.deliver_after


# Quiet hours

instants = st.datetimes(datetime(1990, 1, 1), datetime(2037, 12, 31)).map(  # noqa: DTZ001  made aware below
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
)


@st.composite
def near_transitions(draw: st.DrawFn) -> tuple[datetime, Any]:
    """An instant and a zone; often one close to a change of the zone's offset."""
    instant, zone = draw(instants), draw(zones)
    step = timedelta(days=1)
    for day in range(200 if draw(st.booleans()) else 0):
        later = instant + day * step
        if later.astimezone(zone).utcoffset() != (later + step).astimezone(zone).utcoffset():
            return later + timedelta(minutes=draw(st.integers(-600, 2000))), zone
    return instant, zone


@settings(max_examples=400, deadline=None)
@given(near_transitions(), quiet_hours, digests)
def test_a_request_never_goes_out_in_quiet_hours_nor_before_its_time(
    where: tuple[datetime, Any], quiet: QuietHours, digest: Digest
) -> None:
    instant, zone = where
    due = deliver_after(instant, quiet=quiet, digest=digest, zone=zone)
    assert due is None or due > instant
    assert quiet_until(due or instant, quiet, zone) is None
    assert due is None or due - instant <= timedelta(days=4)
    assert due is not None or digest == "off"


@settings(max_examples=400, deadline=None)
@given(near_transitions(), quiet_hours)
def test_without_a_change_of_the_clock_quiet_hours_are_what_the_clock_shows(
    where: tuple[datetime, Any], quiet: QuietHours
) -> None:
    instant, zone = where
    around = [(instant + timedelta(hours=hours)).astimezone(zone).utcoffset() for hours in range(-50, 51)]
    assume(len(set(around)) == 1)
    assume(quiet.start != quiet.end)
    shown = instant.astimezone(zone).time()
    if quiet.start < quiet.end:
        is_quiet = quiet.start <= shown < quiet.end
    else:
        is_quiet = shown >= quiet.start or shown < quiet.end
    until = quiet_until(instant, quiet, zone)
    assert (until is not None) == is_quiet
    if until is not None:
        assert until.astimezone(zone).time() == quiet.end
        assert until - instant <= timedelta(days=1)


@settings(max_examples=400, deadline=None)
@given(near_transitions(), times)
def test_the_first_instant_is_the_first_one_at_which_the_clock_has_got_there(
    where: tuple[datetime, Any], at: time
) -> None:
    instant, zone = where
    wall = datetime.combine(instant.astimezone(zone).date(), at)
    found = first_instant(wall, zone)

    def shown(moment: datetime) -> datetime:
        return moment.astimezone(zone).replace(tzinfo=None)

    assert shown(found) >= wall
    assert all(shown(found - timedelta(seconds=1 + 60 * minute)) < wall for minute in range(150))
