"""The rules of notification, decided in memory as the service decides them, one record after the other."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.notification.domain import Seats, Thread
from services.notification.service import Round
from shared.events import Candidate, Event, NotificationRequestedV1, NotificationRetractedV1
from shared.stream.effects import Effects
from shared.stream.records import AnyIncoming, Incoming, Position, in_order_of_arrival
from shared.testing.builders import START, after, contract_started, preferences_set, seat_assigned, with_id
from shared.testing.conversations import Conversation
from shared.topics import CONTRACT_EVENTS, CONVERSATION_EVENTS, NOTIFICATION_REQUESTS, OUTCOME_EVENTS, TOPICS

AnyEvent = Event[Any]
TOPIC_OF = {kind: t for t in (CONVERSATION_EVENTS, OUTCOME_EVENTS, CONTRACT_EVENTS) for kind in TOPICS[t].types}

DAY = after(days=1)
NIGHT = after(days=1, hours=14)  # 23:00 in London, where the seats of these tests are
MORNING = after(days=1, hours=22)
QUIET = ("22:00", "07:00")


class Desk:
    """Notification without a database: what it knows stays in memory."""

    def __init__(self) -> None:
        self.threads: dict[str, Thread] = {}
        self.seats = Seats()
        self.waiting: dict[str, list[AnyIncoming]] = {}
        self.results: list[str] = []
        self.gaps = self.unknown_time_zones = self.offset = 0

    def take(self, *events: AnyEvent, at: datetime = START) -> list[AnyEvent]:
        """Decide events as one batch; return what was emitted."""
        effects = Effects("notification")
        for event in events:
            if TOPIC_OF[event.type] != CONTRACT_EVENTS:
                self.threads.setdefault(event.subject, Thread(event.subject))
        work = Round(self.threads, self.seats, self.waiting, effects)
        for event in events:
            self.offset += 1
            position = Position(TOPIC_OF[event.type], 0, self.offset)
            work.take(Incoming(position, at, event, event.subject.encode(), b"", ()))
        self.waiting = work.waiting
        self.gaps += work.gaps
        self.unknown_time_zones += work.unknown_time_zones
        self.results += list(effects.marks.values())
        assert {topic for topic, _, _ in effects.emitted} <= {NOTIFICATION_REQUESTS}
        return [event for _, event, _ in effects.emitted]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def thread() -> Conversation:
    return Conversation()


def answered(thread: Conversation, *, followers: tuple[str, ...] = (), at: datetime = DAY) -> list[AnyEvent]:
    """The facts of a thread with one InMail and one reply."""
    return [thread.status(), thread.audience(follower_seat_ids=followers), thread.reply(at)]


def told(events: list[AnyEvent]) -> list[tuple[str, str, str]]:
    """(recipient, channel, kind) of requests, in order."""
    return [(e.data.recipient.seat_id, e.data.channel, e.data.kind) for e in events]


def requests(events: list[AnyEvent], channel: str) -> list[NotificationRequestedV1]:
    return [e.data for e in events if isinstance(e.data, NotificationRequestedV1) and e.data.channel == channel]


def retractions(events: list[AnyEvent]) -> list[NotificationRetractedV1]:
    return [e.data for e in events if isinstance(e.data, NotificationRetractedV1)]


# Who is told what (R26)


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (
            "accepted",
            "candidate_interested",
            (
                "Candidate Ada is interested in starting a conversation. "
                "Please follow up soon to continue the conversation."
            ),
        ),
        ("declined", "candidate_declined", "Candidate Ada declined your message."),
    ],
)
def test_r26_a_first_outcome_is_told_word_for_word(
    desk: Desk, thread: Conversation, outcome: Any, kind: str, text: str
) -> None:
    (event,) = desk.take(*answered(thread), thread.decided(outcome))
    data = event.data
    assert (data.kind, data.text, data.locale, data.channel) == (kind, text, "en", "in_thread")
    assert (data.recipient.seat_id, data.thread_id, data.inmail_id) == ("seat-1", "thread-1", "inmail-1")
    assert (data.subject_key, data.version, data.supersedes) == ("thread-1", 1, None)
    assert (data.deliver_after, data.digest_key) == (None, None)
    assert (event.subject, event.time) == ("seat-1", after(days=1))


@pytest.mark.parametrize("name", [None, "", "  ", "\u200b"])
def test_r26_where_no_name_is_known_it_is_a_candidate(desk: Desk, name: str | None) -> None:
    thread = Conversation(candidate=Candidate(id="candidate-1", name=name))
    (event,) = desk.take(*answered(thread), thread.decided("declined"))
    assert event.data.text == "A candidate declined your message."


def test_r26_a_name_is_put_in_as_it_is(desk: Desk) -> None:
    thread = Conversation(candidate=Candidate(id="candidate-1", name="{name} %s Ünal"))
    (event,) = desk.take(*answered(thread), thread.decided("declined"))
    assert event.data.text == "Candidate {name} %s Ünal declined your message."


def test_r26_an_equal_or_unchanged_outcome_is_only_a_reply(desk: Desk, thread: Conversation) -> None:
    desk.take(*answered(thread), thread.decided("accepted"))
    desk.take(thread.reply(reply_id="reply-2"), thread.reply(reply_id="reply-3"))
    again = desk.take(thread.decided("accepted", reply_id="reply-2", source="choice"))
    unchanged = desk.take(thread.unchanged(reply_id="reply-3"))
    assert [e.data.kind for e in again + unchanged] == ["candidate_replied", "candidate_replied"]
    assert again[0].data.text == "Candidate Ada replied to your message."


def test_r26_a_changed_outcome_is_told_also_when_a_human_changes_it(desk: Desk, thread: Conversation) -> None:
    desk.take(*answered(thread), thread.decided("accepted"))
    desk.take(thread.reply(reply_id="reply-2"))
    by_reply = desk.take(thread.decided("declined", reply_id="reply-2"))
    by_human = desk.take(thread.decided("accepted", reply_id="reply-2", source="human", at=after(days=9)))
    assert [e.data.kind for e in by_reply + by_human] == ["candidate_declined", "candidate_interested"]
    assert by_human[0].time == after(days=9)


def test_r26_what_is_no_outcome_is_told_to_nobody(desk: Desk, thread: Conversation) -> None:
    assert desk.take(*answered(thread), thread.locked(), thread.correction_rejected(), contract_started()) == []


def test_r26_owner_and_followers_are_told_once_each(desk: Desk, thread: Conversation) -> None:
    facts = answered(thread, followers=("seat-3", "seat-1", "seat-2"))
    assert told(desk.take(*facts, thread.decided())) == [
        (seat, "in_thread", "candidate_interested") for seat in ("seat-1", "seat-2", "seat-3")
    ]


def test_r26_channels_follow_preferences_and_the_thread_always(desk: Desk, thread: Conversation) -> None:
    desk.take(
        preferences_set(channels=("webhook", "push")),
        preferences_set(seat_id="seat-2", channels=()),
        seat_assigned(seat_id="seat-3"),
    )
    events = desk.take(*answered(thread, followers=("seat-2", "seat-3", "seat-4")), thread.decided())
    assert [(seat, channel) for seat, channel, _ in told(events)] == [
        ("seat-1", "in_thread"),
        ("seat-1", "push"),
        ("seat-1", "webhook"),
        ("seat-2", "in_thread"),
        ("seat-3", "in_thread"),  # no preferences
        ("seat-4", "in_thread"),  # not known
    ]
    assert len({e.id for e in events}) == len({e.data.notification_id for e in events}) == len(events)


def test_r26_the_newest_known_preferences_are_in_force(desk: Desk, thread: Conversation) -> None:
    desk.take(preferences_set(channels=("email",), at=after(days=3)), preferences_set(channels=("push",)))
    assert len(requests(desk.take(*answered(thread), thread.decided()), "email")) == 1
    desk.take(preferences_set(channels=(), at=after(days=4)))
    desk.take(thread.reply(reply_id="reply-2"))
    assert [channel for _, channel, _ in told(desk.take(thread.unchanged(reply_id="reply-2")))] == ["in_thread"]


def test_r26_the_audience_is_that_of_the_replys_version(desk: Desk, thread: Conversation) -> None:
    desk.take(*answered(thread), thread.audience("seat-2", follower_seat_ids=("seat-3",), at=after(days=1)))
    assert told(desk.take(thread.decided())) == [("seat-1", "in_thread", "candidate_interested")]
    desk.take(thread.reply(reply_id="reply-2"))
    seats = [seat for seat, _, _ in told(desk.take(thread.unchanged(reply_id="reply-2")))]
    assert seats == ["seat-2", "seat-3"]


def test_r26_a_correction_is_told_to_the_audience_of_its_own_day(desk: Desk, thread: Conversation) -> None:
    desk.take(*answered(thread), thread.decided())
    desk.take(thread.audience("seat-2", at=after(days=5)), thread.audience("seat-3", at=after(days=30)))
    corrected = thread.decided("declined", source="human", at=after(days=9))
    assert told(desk.take(corrected)) == [("seat-2", "in_thread", "candidate_declined")]


def test_r26_without_an_audience_the_sender_is_told(desk: Desk, thread: Conversation) -> None:
    assert told(desk.take(thread.status(), thread.reply(), thread.decided())) == [
        ("seat-1", "in_thread", "candidate_interested")
    ]


def test_r26_an_outcome_waits_for_the_view_of_its_thread(desk: Desk, thread: Conversation) -> None:
    sent, audience, reply = answered(thread)
    outcome = thread.decided()
    assert desk.take(outcome, sent) == []
    assert desk.take(audience) == []
    assert [e.causeid for e in desk.take(reply)] == [outcome.id]
    assert desk.waiting == {"thread-1": []}
    assert desk.results == ["parked"]


def test_r26_outcomes_of_a_thread_are_told_in_their_order_also_after_waiting(desk: Desk, thread: Conversation) -> None:
    facts = answered(thread)
    second = thread.reply(reply_id="reply-2")
    outcomes = [
        thread.decided("accepted"),
        thread.decided("declined", reply_id="reply-2"),
        thread.decided("accepted", reply_id="reply-1", source="human", at=after(days=2)),  # names an older version
    ]
    assert [e.data.kind for e in desk.take(*facts, *outcomes)] == ["candidate_interested"]
    assert [e.data.kind for e in desk.take(second)] == ["candidate_declined", "candidate_interested"]


def test_r26_repeats_are_told_once(desk: Desk, thread: Conversation) -> None:
    facts = answered(thread)
    first, second = thread.decided(), thread.reply(reply_id="reply-2")
    unchanged = thread.unchanged(reply_id="reply-2")
    assert len(desk.take(*facts, first, first, second, unchanged, unchanged)) == 2
    assert desk.take(*facts, first, second, unchanged) == []
    assert desk.results == ["duplicate"] * 8


def test_r26_a_repeat_of_what_waits_is_told_once(desk: Desk, thread: Conversation) -> None:
    facts = answered(thread)
    outcome = thread.decided()
    assert desk.take(outcome, outcome) == []
    assert len(desk.take(*facts)) == 1


def test_r26_numbers_that_were_skipped_are_counted(desk: Desk, thread: Conversation) -> None:
    sent, audience, reply = answered(thread)
    thread.decided()
    desk.take(sent, reply, thread.decided("declined"))
    assert desk.gaps == 2
    assert desk.take(audience) == []


# When it goes out (R27)


def test_r27_quiet_hours_hold_all_channels_but_the_thread(desk: Desk, thread: Conversation) -> None:
    desk.take(seat_assigned(), preferences_set(channels=("push", "email"), quiet_hours=QUIET))
    events = desk.take(*answered(thread, at=NIGHT), thread.decided())
    assert {e.data.channel: e.data.deliver_after for e in events} == {
        "in_thread": None,
        "push": MORNING,
        "email": MORNING,
    }
    assert {e.data.digest_key for e in events} == {None}


def test_r27_quiet_hours_are_the_seats_own(desk: Desk, thread: Conversation) -> None:
    desk.take(
        seat_assigned(seat_id="seat-1", time_zone="Asia/Tokyo"),
        seat_assigned(seat_id="seat-2", time_zone=None),
        *(preferences_set(seat_id=f"seat-{n}", quiet_hours=QUIET) for n in (1, 2, 3)),
    )
    events = desk.take(*answered(thread, followers=("seat-2", "seat-3"), at=NIGHT), thread.decided())
    # 08:00 in Tokyo; without a time zone, and for a seat that is not known, it is 23:00 in UTC.
    assert [r.deliver_after for r in requests(events, "push")] == [None, MORNING, MORNING]


def test_r27_a_time_zone_that_does_not_exist_is_utc_and_counted(desk: Desk, thread: Conversation) -> None:
    desk.take(seat_assigned(time_zone="Asia/Tokyo"), seat_assigned(time_zone="Mars/Olympus", at=after(days=1)))
    assert desk.unknown_time_zones == 1
    desk.take(preferences_set(quiet_hours=QUIET))
    (push,) = requests(desk.take(*answered(thread, at=NIGHT), thread.decided()), "push")
    assert push.deliver_after == MORNING


def test_r27_the_newest_assignment_says_the_time_zone(desk: Desk, thread: Conversation) -> None:
    desk.take(seat_assigned(time_zone="Asia/Tokyo", at=after(days=1)), seat_assigned(time_zone="Europe/London"))
    desk.take(preferences_set(quiet_hours=QUIET))
    (push,) = requests(desk.take(*answered(thread, at=NIGHT), thread.decided()), "push")
    assert push.deliver_after is None


def test_r27_quiet_hours_are_judged_when_the_candidate_responded(desk: Desk, thread: Conversation) -> None:
    desk.take(seat_assigned(), preferences_set(quiet_hours=QUIET))
    desk.take(*answered(thread, at=NIGHT), thread.decided())
    corrected = thread.decided("declined", source="human", at=MORNING + timedelta(hours=5))
    (push,) = requests(desk.take(corrected), "push")
    assert push.deliver_after == MORNING


def test_r27_facts_of_one_digest_share_its_key(desk: Desk) -> None:
    desk.take(
        seat_assigned(),
        preferences_set(channels=("push", "email"), quiet_hours=QUIET, digest="daily"),
        preferences_set(seat_id="seat-2", channels=("push",), digest="daily"),
    )
    made = []
    for number in (1, 2):
        thread = Conversation(thread_id=f"thread-{number}")
        facts = answered(thread, followers=("seat-2",), at=NIGHT + timedelta(hours=number))
        made += desk.take(*facts, thread.decided())
    # Two facts for seat-1 on each of two channels, and for seat-2 on one; each fact has its own request.
    deferred = [e.data for e in made if e.data.channel != "in_thread"]
    assert len(deferred) == 6
    assert {r.deliver_after for r in deferred} == {MORNING + timedelta(hours=1)}
    assert len({r.digest_key for r in deferred}) == 3
    assert len({(r.recipient.seat_id, r.channel, r.digest_key) for r in deferred}) == 3
    assert {e.data.digest_key for e in made if e.data.channel == "in_thread"} == {None}


def test_r27_another_days_digest_has_another_key(desk: Desk) -> None:
    desk.take(preferences_set(digest="hourly"))
    keys = set()
    for number in (1, 2):
        thread = Conversation(thread_id=f"thread-{number}")
        (push,) = requests(desk.take(*answered(thread, at=after(days=1, hours=number)), thread.decided()), "push")
        keys.add(push.digest_key)
    assert len(keys) == 2


# What replaces what (R28)


def test_r28_versions_count_per_recipient_channel_and_thread(desk: Desk, thread: Conversation) -> None:
    desk.take(preferences_set())
    first = desk.take(*answered(thread), thread.decided("accepted"))
    desk.take(preferences_set(channels=(), at=after(days=1)))
    desk.take(thread.reply(reply_id="reply-2"), thread.unchanged(reply_id="reply-2"))
    desk.take(preferences_set(channels=("push", "email"), at=after(days=2)))
    third = desk.take(thread.reply(reply_id="reply-3"), thread.decided("declined", reply_id="reply-3"))
    assert {e.data.channel: e.data.version for e in first} == {"in_thread": 1, "push": 1}
    assert {e.data.channel: e.data.version for e in third} == {"in_thread": 3, "push": 2, "email": 1}
    other = Conversation(thread_id="thread-2")
    assert {e.data.version for e in desk.take(*answered(other), other.decided())} == {1}


def test_r28_a_changed_outcome_supersedes_the_last_one_told(desk: Desk, thread: Conversation) -> None:
    (first,) = desk.take(*answered(thread), thread.decided("accepted"))
    (reply,) = desk.take(thread.reply(reply_id="reply-2"), thread.unchanged(reply_id="reply-2"))
    (third,) = desk.take(thread.reply(reply_id="reply-3"), thread.decided("declined", reply_id="reply-3"))
    (fourth,) = desk.take(thread.decided("accepted", reply_id="reply-3", source="human", at=after(days=3)))
    assert (reply.data.kind, reply.data.supersedes) == ("candidate_replied", None)
    assert third.data.supersedes == first.data.notification_id
    assert fourth.data.supersedes == third.data.notification_id


def test_r28_an_equal_outcome_supersedes_nothing_and_is_not_superseded(desk: Desk, thread: Conversation) -> None:
    (first,) = desk.take(*answered(thread), thread.decided("accepted"))
    (equal,) = desk.take(thread.reply(reply_id="reply-2"), thread.decided("accepted", reply_id="reply-2"))
    (third,) = desk.take(thread.reply(reply_id="reply-3"), thread.decided("declined", reply_id="reply-3"))
    assert equal.data.supersedes is None
    assert third.data.supersedes == first.data.notification_id


def test_r28_a_change_before_delivery_retracts_what_waits(desk: Desk, thread: Conversation) -> None:
    desk.take(seat_assigned(), preferences_set(channels=("push", "email"), quiet_hours=QUIET))
    first = desk.take(*answered(thread, at=NIGHT), thread.decided("accepted"))
    change = thread.decided("declined", source="human", at=MORNING - timedelta(milliseconds=1))
    second = desk.take(change)
    waiting = {e.data.notification_id: e.data for e in first if e.data.channel != "in_thread"}
    assert {r.notification_id for r in retractions(second)} == set(waiting)
    for retraction in retractions(second):
        assert retraction.channel == waiting[retraction.notification_id].channel
        assert (retraction.recipient.seat_id, retraction.subject_key, retraction.version) == ("seat-1", "thread-1", 1)
        assert retraction.reason == "OUTCOME_CHANGED"
    assert [e.type for e in second] == ["notification.retracted.v1"] * 2 + ["notification.requested.v1"] * 3
    assert {e.causeid for e in second} == {change.id}
    assert {e.time for e in second} == {change.time}
    assert len({e.id for e in second}) == 5
    # The new request still names what it stands in for, and goes on counting.
    (push,) = requests(second, "push")
    assert push.supersedes in waiting
    assert push.version == 2


def test_r28_what_was_delivered_is_not_retracted(desk: Desk, thread: Conversation) -> None:
    desk.take(seat_assigned(), preferences_set(quiet_hours=QUIET))
    desk.take(*answered(thread, at=NIGHT), thread.decided("accepted"))
    assert retractions(desk.take(thread.decided("declined", source="human", at=MORNING))) == []


def test_r28_what_was_retracted_is_not_retracted_again(desk: Desk, thread: Conversation) -> None:
    desk.take(seat_assigned(), preferences_set(quiet_hours=QUIET))
    desk.take(*answered(thread, at=NIGHT), thread.decided("accepted"))
    desk.take(preferences_set(channels=(), at=after(days=1)))
    change = NIGHT + timedelta(minutes=1)
    desk.take(thread.reply(change, reply_id="reply-2"), thread.reply(change, reply_id="reply-3"))
    assert len(retractions(desk.take(thread.decided("declined", reply_id="reply-2")))) == 1
    assert retractions(desk.take(thread.decided("accepted", reply_id="reply-3"))) == []


def test_r28_a_reply_that_changes_nothing_retracts_nothing_and_can_be_retracted(
    desk: Desk, thread: Conversation
) -> None:
    desk.take(seat_assigned(), preferences_set(quiet_hours=QUIET))
    desk.take(*answered(thread, at=NIGHT), thread.decided("accepted"))
    desk.take(thread.reply(NIGHT + timedelta(minutes=1), reply_id="reply-2"))
    replied = desk.take(thread.unchanged(reply_id="reply-2"))
    assert retractions(replied) == []
    desk.take(thread.reply(NIGHT + timedelta(minutes=2), reply_id="reply-3"))
    changed = desk.take(thread.decided("declined", reply_id="reply-3"))
    assert {r.version for r in retractions(changed)} == {1, 2}


def test_r28_who_left_the_audience_is_still_spared_what_no_longer_holds(desk: Desk, thread: Conversation) -> None:
    desk.take(seat_assigned(seat_id="seat-2"), preferences_set(seat_id="seat-2", quiet_hours=QUIET))
    desk.take(*answered(thread, followers=("seat-2",), at=NIGHT), thread.decided("accepted"))
    desk.take(thread.audience(at=NIGHT), thread.reply(NIGHT, reply_id="reply-2"))
    changed = desk.take(thread.decided("declined", reply_id="reply-2"))
    assert [r.recipient.seat_id for r in retractions(changed)] == ["seat-2"]
    assert [seat for seat, _, _ in told(changed[1:])] == ["seat-1"]


def test_r28_another_threads_requests_stand(desk: Desk, thread: Conversation) -> None:
    desk.take(seat_assigned(), preferences_set(quiet_hours=QUIET))
    desk.take(*answered(thread, at=NIGHT), thread.decided("accepted"))
    other = Conversation(thread_id="thread-2")
    desk.take(*answered(other, at=NIGHT), other.decided("accepted"))
    assert len(retractions(desk.take(other.decided("declined", source="human", at=NIGHT)))) == 1


# Order and identity


def test_ids_name_cause_recipient_and_channel(desk: Desk, thread: Conversation) -> None:
    facts, outcome = answered(thread, followers=("seat-2",)), thread.decided()
    again = Desk()
    assert desk.take(*facts, outcome) == again.take(*facts, outcome)
    other = Desk().take(*facts, with_id(replace(outcome, source="/elsewhere", id="")))
    assert not {e.data.notification_id for e in other} & {e.data.notification_id for e in again.take(outcome)}


def test_a_batch_is_taken_in_order_of_the_brokers_time_and_a_partition_in_its_own() -> None:
    def record(topic: str, offset: int, seconds: int) -> AnyIncoming:
        return Incoming(Position(topic, 0, offset), after(seconds=seconds), contract_started(), b"", b"", ())

    batch = [record("b", 0, 5), record("b", 1, 2), record("a", 0, 1), record("a", 1, 5), record("a", 2, 6)]
    ordered = [(i.position.topic, i.position.offset) for i in in_order_of_arrival(batch)]
    assert ordered == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("a", 2)]
