"""Notification on a real Postgres: what it keeps between batches is all it needs, and it keeps no names."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from random import Random
from typing import Any

import asyncpg
import pytest

from services.notification import store
from services.notification.domain import Preferences, Seats
from services.notification.service import SPEC
from shared.events import STRUCTURED_HEADERS, Candidate, Digest, Event, Outcome, PushedChannel, encode
from shared.postgres import transaction
from shared.stream.records import REDRIVE_HEADER, Position, RawRecord
from shared.testing.builders import after, contract_ended, contract_started, preferences_set, record, seat_assigned
from shared.testing.conversations import Conversation
from shared.testing.databases import Databases, as_service
from shared.testing.harness import PARTITION, Harness
from shared.topics import CONTRACT_EVENTS, CONVERSATION_EVENTS, NOTIFICATION_REQUESTS, OUTCOME_EVENTS, TOPICS

AnyEvent = Event[Any]
TOPIC_OF = {kind: t for t in (CONVERSATION_EVENTS, OUTCOME_EVENTS, CONTRACT_EVENTS) for kind in TOPICS[t].types}

NOW = after(days=120)  # the broker's clock: later than everything that happens here
NIGHT = after(days=1, hours=14)  # 23:00 in London
MORNING = after(days=1, hours=22)
QUIET = ("22:00", "07:00")
SEATS = ("seat-1", "seat-2", "seat-3", 'seat "4", Ünal')


@pytest.fixture
async def notification(database: str) -> AsyncIterator[Harness]:
    harness = await Harness.open(SPEC, as_service(database, "notification"))
    yield harness
    await harness.close()


async def feed(notification: Harness, *events: AnyEvent) -> list[AnyEvent]:
    """Feed events one by one, each to its topic."""
    emitted = []
    for fact in events:
        emitted += await notification.feed(TOPIC_OF[fact.type], fact, timestamp=NOW)
    return emitted


async def values(notification: Harness, sql: str) -> list[Any]:
    """Read one column."""
    return [row[0] for row in await notification.fetch(sql)]


def answered(thread: Conversation, **audience: Any) -> list[AnyEvent]:
    return [thread.status(), thread.audience(**audience), thread.reply(NIGHT)]


async def test_what_a_thread_was_told_is_known_in_the_next_batch(notification: Harness) -> None:
    thread = Conversation()
    await feed(notification, seat_assigned(), preferences_set(quiet_hours=QUIET), *answered(thread))
    first = await feed(notification, thread.decided("accepted"))
    assert {(e.data.channel, e.data.deliver_after) for e in first} == {("in_thread", None), ("push", MORNING)}
    await feed(notification, thread.reply(NIGHT, reply_id="reply-2"))
    second = await feed(notification, thread.unchanged(reply_id="reply-2"))
    third = await feed(notification, thread.decided("declined", source="human", at=MORNING - timedelta(seconds=1)))
    assert [e.data.version for e in second] == [2, 2]
    assert sorted((e.type, e.data.channel, e.data.version) for e in third) == [
        ("notification.requested.v1", "in_thread", 3),
        ("notification.requested.v1", "push", 3),
        ("notification.retracted.v1", "push", 1),
        ("notification.retracted.v1", "push", 2),
    ]
    assert {e.data.supersedes for e in third[2:]} == {e.data.notification_id for e in first}
    assert await feed(notification, thread.decided("accepted", source="human", at=after(days=9))) != []
    assert not notification.dead
    assert {topic for topic, _ in notification.emitted} == {NOTIFICATION_REQUESTS}


async def test_repeats_after_a_restart_change_nothing(notification: Harness) -> None:
    thread = Conversation()
    facts = [preferences_set(), *answered(thread, follower_seat_ids=SEATS), thread.decided()]
    facts += [thread.reply(NIGHT, reply_id="reply-2"), thread.unchanged(reply_id="reply-2"), thread.audience("seat-3")]
    assert len(await feed(notification, *facts)) == 10
    assert await feed(notification, *facts) == []
    assert [result for _, _, result in notification.results].count("duplicate") == len(facts)


async def test_an_outcome_waits_in_the_database(notification: Harness) -> None:
    thread = Conversation()
    facts, outcome = answered(thread), thread.decided()
    assert await feed(notification, outcome, *facts[:2]) == []
    assert await values(notification, "SELECT wait_key FROM parked") == ["thread-1"]
    assert [e.causeid for e in await feed(notification, facts[2])] == [outcome.id]
    assert await values(notification, "SELECT wait_key FROM parked") == []
    assert await values(notification, "SELECT holding FROM thread") == [False]


async def test_r26_an_audience_that_was_given_up_counts_once_it_is_sent_back(notification: Harness) -> None:
    thread = Conversation()
    status, lost, answer = answered(thread, follower_seat_ids=("seat-2",))
    newer = thread.audience(follower_seat_ids=("seat-3",))
    await feed(notification, status, answer, newer)
    again = [(lost.subject.encode(), encode(lost))]
    await notification.feed_raw(CONVERSATION_EVENTS, again, headers=[*STRUCTURED_HEADERS, (REDRIVE_HEADER, b"1")])
    told = await feed(notification, thread.decided())
    assert [e.data.recipient.seat_id for e in told] == ["seat-1", "seat-2"]
    await notification.feed_raw(CONVERSATION_EVENTS, again, headers=[*STRUCTURED_HEADERS, (REDRIVE_HEADER, b"1")])
    assert not notification.dead, "sent back once more, it changes nothing"
    assert await values(notification, "SELECT count(*) FROM audience") == [2]


async def test_what_waits_too_long_is_an_orphan_and_holds_nothing_up(notification: Harness) -> None:
    thread = Conversation()
    facts, outcome = answered(thread), thread.decided()
    await feed(notification, outcome)
    await notification.expire(NOW + timedelta(days=2))
    assert await notification.dead_reasons() == ["ORPHANED"]
    thread.reply(NIGHT, reply_id="reply-2")
    emitted = await feed(notification, *facts, thread.decided("declined", source="human", at=NIGHT))
    assert [e.data.kind for e in emitted] == ["candidate_declined"]


async def test_no_outcome_is_an_orphan_while_what_it_waits_for_lies_unread(notification: Harness) -> None:
    """As after days of standing still, when outcomes are read faster than the many more conversation events."""
    thread, other = Conversation(), Conversation("thread-2")
    facts, outcome = answered(thread), thread.decided()
    answered(other)
    later = NOW + timedelta(days=2)
    await notification.feed(OUTCOME_EVENTS, outcome, timestamp=NOW)
    await notification.feed(OUTCOME_EVENTS, other.decided(), timestamp=later)
    await notification.processor.sweep(notification.claims, {(OUTCOME_EVENTS, PARTITION): later})
    assert await notification.dead_reasons() == []
    assert [e.causeid for e in await feed(notification, *facts)] == [outcome.id]
    await notification.expire(later + timedelta(days=1))
    assert await notification.dead_reasons() == ["ORPHANED"], "the other's facts never came"


async def test_a_seat_belongs_to_whom_spoke_last_by_event_time_whatever_its_contract(notification: Harness) -> None:
    newer = preferences_set(contract_id="contract-2", channels=("email",), quiet_hours=QUIET, at=after(days=2))
    await feed(notification, newer, preferences_set(channels=("push",), at=after(days=1)))
    moved = seat_assigned(contract_id="contract-2", time_zone="Asia/Tokyo", at=after(days=2))
    await feed(notification, moved, seat_assigned(time_zone="Mars/Olympus", at=after(days=1)))
    rows = await notification.fetch("SELECT time_zone, channels, quiet_start FROM seat JOIN preference USING (seat_id)")
    assert [(row[0], row[1], row[2].isoformat("minutes")) for row in rows] == [("Asia/Tokyo", ["email"], "22:00")]


async def test_two_owners_of_a_seats_contracts_leave_the_newest_preferences(notification: Harness) -> None:
    """The race of two processes: each has read the row before the other wrote it; one waits for the other."""
    older, newer = preferences_set(channels=("push",)), preferences_set(channels=("email",), at=after(days=1))
    pool = notification.resources.pool

    async def save(seats: Seats) -> None:
        async with transaction(pool) as tx:
            await store.save_seats(tx, seats)

    for words in ((older, newer), (newer, older)):
        first, second = Seats(), Seats()
        first.prefer(words[0].data)
        second.prefer(words[1].data)
        async with transaction(pool) as tx:
            await store.save_seats(tx, first)
            waits = asyncio.create_task(save(second))
        await waits
        assert await values(notification, "SELECT channels FROM preference") == [["email"]]
        await pool.execute("DELETE FROM preference")


async def test_preferences_come_back_as_they_were_written(notification: Harness) -> None:
    seats = Seats()
    seats.prefer(preferences_set(seat_id="seat-0", channels=()).data)
    seats.prefer(preferences_set(seat_id="seat-1", channels=("push", "email"), quiet_hours=QUIET, digest="hourly").data)
    async with transaction(notification.resources.pool) as tx:
        await store.save_seats(tx, seats)
        loaded = await store.load_seats(tx, ["seat-0", "seat-1", "seat-2"])
    assert loaded.preferences == seats.preferences
    assert all(isinstance(p, Preferences) for p in loaded.preferences.values())


async def test_bad_contract_events_are_left_to_credits(notification: Harness) -> None:
    await notification.feed_raw(CONTRACT_EVENTS, [(b"contract-1", b"{"), (b"contract-1", None)], timestamp=NOW)
    taken = preferences_set(channels=("email",), id="event-1")
    conflict = preferences_set(channels=(), id="event-1", at=after(days=1))
    skewed = preferences_set(channels=(), at=NOW + timedelta(minutes=6))
    await feed(notification, contract_started(), taken, conflict, skewed, contract_ended())
    assert await values(notification, "SELECT channels FROM preference") == [["email"]]
    assert not notification.dead


async def test_the_database_refuses_a_second_request_of_one_cause(notification: Harness) -> None:
    thread = Conversation()
    await feed(notification, *answered(thread), thread.decided())
    with pytest.raises(asyncpg.UniqueViolationError):
        await notification.resources.pool.execute("""
            INSERT INTO notification_request (notification_id, thread_id, recipient_seat_id, channel, version)
            SELECT notification_id, thread_id, recipient_seat_id, channel, version + 1 FROM notification_request
        """)
    with pytest.raises(asyncpg.UniqueViolationError):
        await notification.resources.pool.execute("""
            INSERT INTO notification_request (notification_id, thread_id, recipient_seat_id, channel, version)
            SELECT gen_random_uuid(), thread_id, recipient_seat_id, channel, version FROM notification_request
        """)


async def test_no_name_is_kept(notification: Harness) -> None:
    thread = Conversation(candidate=Candidate(id="candidate-1", name="Zaphod"))
    (made,) = await feed(notification, *answered(thread), thread.decided())
    assert "Zaphod" in made.data.text
    for table in ("thread", "audience", "notification_request"):
        rows = await notification.fetch(f"SELECT t::text FROM {table} t")  # noqa: S608  a constant
        assert rows
        assert not any("Zaphod" in row[0] for row in rows)


def history(random: Random, thread: Conversation) -> list[AnyEvent]:
    """A thread's facts and outcomes, outcomes now and then before their facts."""
    made = [thread.status(), thread.audience(follower_seat_ids=tuple(random.sample(SEATS, 2)))]
    for number in range(random.randint(1, 6)):
        at = NIGHT + timedelta(hours=random.randint(-12, 12))
        if random.random() < 0.3:
            made.append(thread.audience(random.choice(SEATS), follower_seat_ids=tuple(random.sample(SEATS, 2)), at=at))
        if thread.outcome is not None and random.random() < 0.3:
            other: Outcome = "accepted" if thread.outcome == "declined" else "declined"
            made.append(thread.decided(other, reply_id=next(reversed(thread.replies)), source="human", at=at))
        else:
            fact = thread.reply(at, reply_id=f"reply-{thread.thread_id}-{number}")
            reply_id = fact.data.reply_id
            if thread.outcome is not None and random.random() < 0.4:
                outcome = thread.unchanged(reply_id=reply_id)
            else:
                outcome = thread.decided(random.choice(("accepted", "declined")), reply_id=reply_id)
            made += [outcome, fact] if random.random() < 0.4 else [fact, outcome]
    return made


def wishes(random: Random, count: int) -> list[AnyEvent]:
    """What recruiters say of themselves."""
    made: list[AnyEvent] = [seat_assigned(seat_id=seat) for seat in random.sample(SEATS, 3)]
    for _ in range(count):
        chosen: list[PushedChannel] = random.sample(("push", "email", "webhook"), random.randint(0, 2))
        quiet = random.choice((None, QUIET))
        digest: Digest = random.choice(("off", "hourly", "daily"))
        at = after(hours=random.randint(0, 9))
        made.append(
            preferences_set(seat_id=random.choice(SEATS), channels=chosen, quiet_hours=quiet, digest=digest, at=at)
        )
    return made


async def feed_in_batches(harness: Harness, stream: Sequence[AnyEvent], batch_records: int) -> list[bytes]:
    """Feed records that the broker took one second after the other, some of each topic in every batch."""
    offsets = Counter({topic: claim.next_offset for (topic, _), claim in harness.claims.items()})
    raw = []
    for second, made in enumerate(stream):
        topic = TOPIC_OF[made.type]
        key, value, headers = record(made)
        position = Position(topic, PARTITION, offsets[topic])
        raw.append(RawRecord(position, NOW + timedelta(seconds=second), key, value, tuple(headers)))
        offsets[topic] += 1
    emitted: list[bytes] = []
    for start in range(0, len(raw), batch_records):
        batch = sorted(raw[start : start + batch_records], key=lambda r: r.position.topic)  # as polls give them
        for outcome in await harness.processor.process(batch, harness.claims):
            assert not outcome.dead
            emitted += [encode(made) for _, made, _ in outcome.effects.emitted]
    return emitted


async def test_a_channel_wanted_again_goes_on_counting_in_the_same_batch(notification: Harness) -> None:
    thread = Conversation()
    stream = [preferences_set(), *answered(thread), thread.decided(), preferences_set(channels=(), at=after(days=1))]
    await feed_in_batches(notification, stream, 1)
    again = [preferences_set(at=after(days=2)), thread.reply(NIGHT, reply_id="reply-2"), thread.decided("declined")]
    await feed_in_batches(notification, again, len(again))
    rows = await notification.fetch("SELECT channel, max(version) FROM notification_request GROUP BY channel")
    assert {row[0]: row[1] for row in rows} == {"in_thread": 2, "push": 2}


@pytest.mark.parametrize("seed", range(4))
async def test_batches_leave_no_trace(databases: Databases, seed: int) -> None:
    """One by one, in small batches or all at once: the same events, in the same order, and the same tables."""
    random = Random(seed)  # noqa: S311  a seed replays a failure
    threads = [history(random, Conversation(thread_id=f"thread-{n}")) for n in range(8)]
    sources = [*threads, wishes(random, 12)]
    stream: list[AnyEvent] = []
    while any(sources):
        stream.append(random.choice([source for source in sources if source]).pop(0))
    stream += stream[: len(stream) // 3]
    results = []
    for batch_records in (1, 3, 10, len(stream)):
        dsn = await databases.create()
        harness = await Harness.open(SPEC, as_service(dsn, "notification"))
        emitted = await feed_in_batches(harness, stream, batch_records)
        tables = [
            sorted(map(tuple, await harness.fetch(f"SELECT * FROM {table}")))  # noqa: S608  a constant
            for table in ("thread", "audience", "seat", "preference")
        ]
        requests = await harness.fetch("SELECT * FROM notification_request ORDER BY notification_id")
        results.append((emitted, tables, list(map(tuple, requests))))
        await harness.close()
        await databases.drop(dsn)
    assert all(result == results[0] for result in results[1:])
    assert len(results[0][0]) > 50
