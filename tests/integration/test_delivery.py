"""The delivery kit on a real Postgres: each guarantee has a test that fails when its mechanism is taken out."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from aiokafka.errors import KafkaTimeoutError

from shared.events import STRUCTURED_HEADERS, Event, ReplySentV1, encode
from shared.postgres import acquire, is_fault
from shared.stream import inbox, outbox, parking
from shared.stream.effects import Effects
from shared.stream.offsets import Claim, FenceRejectedError, RetentionPassedError, claim
from shared.stream.outbox import Publication
from shared.stream.parking import load_parked
from shared.stream.processor import NoneSucceedsError, Read
from shared.stream.records import REDRIVE_HEADER, AnyIncoming, Position, RawRecord
from shared.stream.service import Resources, ServiceSpec
from shared.testing import builders
from shared.testing.harness import Harness
from shared.topics import MESSAGING_EVENTS

SERVICE = "ingestion"


class PoisonError(Exception):
    """What a bug in a handler looks like."""


class RecordingHandler:
    """Writes one row per event and emits nothing; obeys instructions in the reply's text."""

    def __init__(self, resources: Resources) -> None:
        del resources
        self.seen: list[str] = []
        self.batches: list[int] = []

    async def prepare(self, batch: Sequence[AnyIncoming]) -> None:
        del batch

    async def handle(self, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects) -> None:
        self.batches.append(len(batch))
        texts = [i.event.data.text if isinstance(i.event.data, ReplySentV1) else "" for i in batch]
        if "poison" in texts:
            raise PoisonError
        if "no table" in texts:
            await tx.execute("SELECT FROM a_table_of_the_next_migration")
        if "standby" in texts:
            await tx.execute("SET LOCAL transaction_read_only = on")
            await tx.execute("DELETE FROM inbox")
        for incoming, text in zip(batch, texts, strict=True):
            if text == "empty":
                effects.dead(incoming, "EMPTY_RESPONSE", "text: empty")
            elif text == "wait":
                effects.park(incoming, incoming.event.subject)
            else:
                for parked in (await load_parked(tx, [incoming.event.subject])).get(incoming.event.subject, []):
                    effects.release(parked)
                    if text == "repeat":
                        effects.duplicate(parked)
                self.seen.append(incoming.event.id)


SPEC = ServiceSpec(
    name=SERVICE,
    reads=(Read(MESSAGING_EVENTS, dedupe=True, upstream=True),),
    handler=RecordingHandler,
)


@asynccontextmanager
async def reading_otherwise(database: str, **changes: Any) -> AsyncIterator[Harness]:
    """The service with other fields of its `Read`."""
    opened = await Harness.open(replace(SPEC, reads=(replace(SPEC.reads[0], **changes),)), database)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def harness(database: str) -> AsyncIterator[Harness]:
    async with reading_otherwise(database) as opened:
        yield opened


def handler_of(harness: Harness) -> Any:
    return harness.processor._handler


def reply(event_id: str, text: str = "hello", **fields: Any) -> Event[Any]:
    fields.setdefault("reply_id", f"reply-{event_id}")
    return replace(builders.reply(text=text, **fields), id=event_id)


# The fence


async def test_fence_rejects_the_owner_that_was_replaced(harness: Harness) -> None:
    stale = {slot: replace_claim(c) for slot, c in harness.claims.items()}
    async with acquire(harness.resources.pool) as connection:
        await claim(connection, SERVICE, dict.fromkeys(stale, 0))
    with pytest.raises(FenceRejectedError):
        await harness.feed(MESSAGING_EVENTS, reply("a"))
    assert await harness.fetch("SELECT * FROM inbox") == []
    assert harness.resources.metrics.fence_rejections._value.get() == 1


async def test_fence_rejects_a_position_that_is_not_the_stored_one(harness: Harness) -> None:
    await harness.feed(MESSAGING_EVENTS, reply("a"))
    harness.claims[MESSAGING_EVENTS, 0].next_offset = 0
    with pytest.raises(FenceRejectedError):
        await harness.feed(MESSAGING_EVENTS, reply("b"))


async def test_a_position_past_retention_stops_the_service(harness: Harness) -> None:
    async with acquire(harness.resources.pool) as connection:
        with pytest.raises(RetentionPassedError, match="records are lost"):
            await claim(connection, SERVICE, {(MESSAGING_EVENTS, 0): 7})


async def test_records_already_committed_are_left_out_of_a_repeated_call(harness: Harness) -> None:
    record = RawRecord(
        Position(MESSAGING_EVENTS, 0, 0), datetime.now(UTC), b"thread-1", encode(reply("a", thread_id="thread-1")), ()
    )
    await harness.processor.process([record], harness.claims)
    assert await harness.processor.process([record], harness.claims) == []


# The inbox


@pytest.mark.parametrize("batch_records", [1, 10])
async def test_r11_a_repeat_has_no_effect(harness: Harness, batch_records: int) -> None:
    await harness.feed(MESSAGING_EVENTS, reply("a"), reply("a"), batch_records=batch_records)
    await harness.feed(MESSAGING_EVENTS, reply("a"))
    assert handler_of(harness).seen == ["a"]
    assert harness.dead == []
    assert [r for *_, r in harness.results].count("duplicate") == 2


@pytest.mark.parametrize("batch_records", [1, 10])
async def test_r11_other_content_under_the_same_id_is_a_conflict_once(harness: Harness, batch_records: int) -> None:
    changed = reply("a", "changed")
    await harness.feed(MESSAGING_EVENTS, reply("a"), changed, changed, batch_records=batch_records)
    assert handler_of(harness).seen == ["a"]
    assert [d.reason for d in harness.dead] == ["ID_CONFLICT"]


@pytest.mark.parametrize("batch_records", [1, 10])
async def test_r11_a_business_id_under_another_event_id(harness: Harness, batch_records: int) -> None:
    await harness.feed(
        MESSAGING_EVENTS,
        reply("a", reply_id="r"),
        reply("b", reply_id="r"),
        reply("c", "other", reply_id="r"),
        batch_records=batch_records,
    )
    assert handler_of(harness).seen == ["a"]
    assert [(d.reason, d.record.position.offset) for d in harness.dead] == [("ID_CONFLICT", 2)]


@pytest.mark.parametrize("batch_records", [1, 10])
async def test_r11_a_dead_letter_is_not_the_first(harness: Harness, batch_records: int) -> None:
    await harness.feed(
        MESSAGING_EVENTS,
        reply("a", "empty", reply_id="r"),
        reply("a", "empty", reply_id="r"),
        reply("a", "words", reply_id="r"),
        batch_records=batch_records,
    )
    assert [d.reason for d in harness.dead] == ["EMPTY_RESPONSE"]
    assert handler_of(harness).seen == ["a"]


@pytest.mark.parametrize("batch_records", [1, 10])
async def test_r11_a_repeat_of_a_conflict_is_counted_as_a_repeat(harness: Harness, batch_records: int) -> None:
    changed = reply("a", "changed")
    await harness.feed(MESSAGING_EVENTS, reply("a"), changed, changed, changed, batch_records=batch_records)
    assert Counter(result for *_, result in harness.results) == {"accepted": 1, "dead_letter": 1, "duplicate": 2}


@pytest.mark.parametrize("batch_records", [1, 10])
async def test_r11_a_repeat_of_what_was_spoilt_is_no_first_wherever_the_batch_is_cut(
    harness: Harness, batch_records: int
) -> None:
    good = encode(reply("a"))
    records = [(b"another-thread", good), (reply("a").subject.encode(), good)]
    await harness.feed_raw(MESSAGING_EVENTS, records, batch_records=batch_records)
    assert [d.reason for d in harness.dead] == ["INVALID_EVENT"]
    assert handler_of(harness).seen == []
    assert sorted(result for *_, result in harness.results) == ["dead_letter", "duplicate"]


async def test_r11_a_dead_letter_lives_only_by_redrive(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = reply("a", "poison")
    record = (dead.subject.encode(), encode(dead))
    await harness.feed_raw(MESSAGING_EVENTS, [record])
    monkeypatch.setattr(RecordingHandler, "handle", _never_poisoned)
    await harness.feed_raw(MESSAGING_EVENTS, [record])
    assert handler_of(harness).seen == []
    await harness.feed_raw(MESSAGING_EVENTS, [record], headers=[(REDRIVE_HEADER, b"1")])
    assert handler_of(harness).seen == ["a"]
    await harness.feed_raw(MESSAGING_EVENTS, [record], headers=[(REDRIVE_HEADER, b"1")])
    assert handler_of(harness).seen == ["a"]


async def _never_poisoned(
    self: RecordingHandler, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects
) -> None:
    del tx, effects
    self.seen += [i.event.id for i in batch]


@pytest.mark.parametrize("batch_records", [1, 10])
@pytest.mark.parametrize(("text", "reason"), [("empty", "EMPTY_RESPONSE"), ("poison", "PROCESSING_FAILED")])
async def test_r11_what_is_dead_comes_back_under_no_other_event_id(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, text: str, reason: str, batch_records: int
) -> None:
    dead, again = reply("a", text, reply_id="r"), reply("b", text, reply_id="r")
    await harness.feed(MESSAGING_EVENTS, dead, again, batch_records=batch_records)
    monkeypatch.setattr(RecordingHandler, "handle", _never_poisoned)
    await harness.feed(MESSAGING_EVENTS, again, reply("c", text, reply_id="r"))
    assert [d.reason for d in harness.dead] == [reason]
    assert handler_of(harness).seen == []
    await harness.feed_raw(
        MESSAGING_EVENTS, [(again.subject.encode(), encode(again))], headers=[(REDRIVE_HEADER, b"1")]
    )
    assert handler_of(harness).seen == ["b"]
    await harness.feed(MESSAGING_EVENTS, dead)
    assert handler_of(harness).seen == ["b"]


async def test_r11_a_conflict_of_the_event_id_leaves_its_fact_free_under_another(harness: Harness) -> None:
    await harness.feed(MESSAGING_EVENTS, reply("a"), reply("a", reply_id="other"), reply("b", reply_id="other"))
    assert [d.reason for d in harness.dead] == ["ID_CONFLICT"]
    assert handler_of(harness).seen == ["a", "b"]


async def test_a_redrive_that_fails_again_is_a_dead_letter_again(harness: Harness) -> None:
    dead = reply("a", "empty")
    record = (dead.subject.encode(), encode(dead))
    await harness.feed_raw(MESSAGING_EVENTS, [record])
    await harness.feed_raw(MESSAGING_EVENTS, [record], headers=[(REDRIVE_HEADER, b"1")])
    assert [d.reason for d in harness.dead] == ["EMPTY_RESPONSE"] * 2


@pytest.mark.parametrize("batch_records", [1, 10])
@pytest.mark.parametrize("dedupe", [True, False])
@pytest.mark.parametrize("text", ["empty", "poison", "no event"])
async def test_r11_a_replay_of_redrives_that_failed_makes_no_further_dead_letters(
    database: str, text: str, dedupe: bool, batch_records: int
) -> None:
    event = reply("a", text)
    record = (event.subject.encode(), b"?" if text == "no event" else encode(event))
    at = datetime(2026, 11, 1, tzinfo=UTC)
    async with reading_otherwise(database, dedupe=dedupe) as harness:

        async def arrive(*, redriven: int, batch_records: int) -> None:
            await harness.feed_raw(MESSAGING_EVENTS, [record], timestamp=at)
            records = [record] * redriven
            headers = [(REDRIVE_HEADER, b"1")]
            await harness.feed_raw(
                MESSAGING_EVENTS, records, headers=headers, timestamp=at, batch_records=batch_records
            )

        await arrive(redriven=2, batch_records=1)
        letters = len(harness.dead)
        assert letters == 3
        for claim in harness.claims.values():
            claim.next_offset = 0
        await harness.fetch("UPDATE consumer_offset SET next_offset = 0")
        await arrive(redriven=2, batch_records=batch_records)
        assert len(harness.dead) == letters
        await harness.feed_raw(MESSAGING_EVENTS, [record], headers=[(REDRIVE_HEADER, b"1")], timestamp=at)
        assert len(harness.dead) == letters + 1, "a new redrive is another attempt"


# Poison


async def test_r11_a_dead_letter_of_an_unscreened_topic_is_not_brought_to_life_by_a_replay(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kit's inbox does not screen topics whose writer numbers its events; their dead stay dead all the same."""
    async with reading_otherwise(database, dedupe=False) as harness:
        dead = reply("a", "empty")
        record = (dead.subject.encode(), encode(dead))
        await harness.feed_raw(MESSAGING_EVENTS, [record])
        monkeypatch.setattr(RecordingHandler, "handle", _never_poisoned)
        await harness.feed_raw(MESSAGING_EVENTS, [record])
        assert (handler_of(harness).seen, harness.results[-1][2]) == ([], "duplicate")
        await harness.feed_raw(MESSAGING_EVENTS, [record], headers=[(REDRIVE_HEADER, b"1")])
        assert handler_of(harness).seen == ["a"]


async def test_poison_alone_becomes_a_dead_letter(harness: Harness) -> None:
    events = [reply(f"e{i}", "poison" if i == 5 else "fine") for i in range(12)]
    await harness.feed(MESSAGING_EVENTS, *events)
    assert handler_of(harness).seen == [e.id for i, e in enumerate(events) if i != 5]
    assert [(d.reason, d.record.position.offset) for d in harness.dead] == [("PROCESSING_FAILED", 5)]
    assert handler_of(harness).batches.count(1) >= 3
    assert harness.claims[MESSAGING_EVENTS, 0].next_offset == 12


async def test_a_table_that_is_missing_makes_no_dead_letters(harness: Harness) -> None:
    """As with code newer than the schema: every record of the topic would be one."""
    with pytest.raises(asyncpg.UndefinedTableError) as raised:
        await harness.feed(MESSAGING_EVENTS, reply("a", "no table"))
    assert is_fault(raised.value)
    assert harness.claims[MESSAGING_EVENTS, 0].next_offset == 0


async def test_connections_to_what_is_a_standby_now_are_given_up(harness: Harness) -> None:
    pool = harness.resources.pool
    async with acquire(pool) as connection:
        before = await connection.fetchval("SELECT pg_backend_pid()")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await harness.feed(MESSAGING_EVENTS, reply("a", "standby"))
    async with acquire(pool) as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") != before


async def test_when_no_record_succeeds_none_is_blamed(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = await Harness.open(SPEC, database, failed_in_a_row_max=2)
    now = datetime.now(UTC)
    events = [reply(f"e{number}", "poison") for number in range(5)]
    records = [
        RawRecord(Position(MESSAGING_EVENTS, 0, offset), now, event.subject.encode(), encode(event), ())
        for offset, event in enumerate(events)
    ]
    for _ in range(2):
        with pytest.raises(NoneSucceedsError, match="2 records in a row failed, at last with PoisonError"):
            await harness.processor.process(records, harness.claims)
        assert harness.claims[MESSAGING_EVENTS, 0].next_offset == 2
    monkeypatch.setattr(RecordingHandler, "handle", _never_poisoned)
    await harness.processor.process(records, harness.claims)
    assert harness.claims[MESSAGING_EVENTS, 0].next_offset == 5
    monkeypatch.undo()
    event = reply("later", "poison")
    later = replace(records[0], position=Position(MESSAGING_EVENTS, 0, 5), value=encode(event))
    (outcome,) = await harness.processor.process([later], harness.claims)
    assert [letter.reason for letter in outcome.dead] == ["PROCESSING_FAILED"], "alone it is to blame"
    await harness.close()


NO_VALUE = [*STRUCTURED_HEADERS, ("x-trace", None)]
"""A header may have no value, as Kafka has it; aiokafka gives None."""


async def test_a_header_without_a_value_is_kept_in_a_letter(harness: Harness) -> None:
    await harness.feed_raw(MESSAGING_EVENTS, [(b"k", b"{")], headers=NO_VALUE)
    async with acquire(harness.resources.pool) as connection:
        (row,) = await outbox.left_behind(connection, [(MESSAGING_EVENTS, 0)], unsourced=False)
    assert row.headers is not None
    assert ("x-trace", None) in row.headers[0]
    assert harness.claims[MESSAGING_EVENTS, 0].next_offset == 1


async def test_a_header_without_a_value_is_kept_while_its_record_waits(harness: Harness) -> None:
    waiting = reply("a", "wait")
    await harness.feed_raw(MESSAGING_EVENTS, [(waiting.subject.encode(), encode(waiting))], headers=NO_VALUE)
    async with acquire(harness.resources.pool) as connection:
        parked = await load_parked(connection, [waiting.subject])
    assert [incoming.headers for incoming in parked[waiting.subject]] == [tuple(NO_VALUE)]


async def test_what_one_reader_alone_cannot_do_is_its_own_letter(database: str) -> None:
    """Another service owns the topic's letters, but that one has done the event, and knows of no failure."""
    async with reading_otherwise(database, owns_dead_letters=False) as harness:
        await harness.feed(MESSAGING_EVENTS, reply("a", "empty"), reply("b", "poison"))
        assert [d.reason for d in harness.dead] == ["PROCESSING_FAILED"]
        counted = harness.resources.metrics.registry.get_sample_value(
            "inmail_dead_letters_total", {"topic": MESSAGING_EVENTS, "reason": "PROCESSING_FAILED"}
        )
        assert counted == 1


async def test_a_conflict_among_many_bad_records_costs_one_cut(harness: Harness) -> None:
    twice = [reply("a"), reply("a", "changed")]
    records: list[tuple[bytes | None, bytes | None]] = [(b"k", b"{")] * 200
    records += [(event.subject.encode(), encode(event)) for event in twice]
    await harness.feed_raw(MESSAGING_EVENTS, records)
    assert Counter(d.reason for d in harness.dead) == {"INVALID_JSON": 200, "ID_CONFLICT": 1}
    assert harness.resources.metrics.registry.get_sample_value("inmail_processing_seconds_count") == 2


async def test_a_batch_of_nothing_but_conflicts_is_worked(harness: Harness) -> None:
    await harness.feed(MESSAGING_EVENTS, *(reply("a", f"changed {number}") for number in range(1_100)))
    assert handler_of(harness).seen == ["a"]
    assert len(harness.dead) == 1_099


async def test_a_failure_to_publish_blames_no_record(harness: Harness) -> None:
    async def fail(_: Publication) -> None:
        raise KafkaTimeoutError

    publish, harness.processor._publish = harness.processor._publish, fail
    with pytest.raises(KafkaTimeoutError):
        await harness.feed(MESSAGING_EVENTS, reply("a"), reply("b"), reply("c"))
    harness.processor._publish = publish
    await harness.feed(MESSAGING_EVENTS, reply("d"))
    assert handler_of(harness).seen == ["a", "b", "c", "d"]
    assert await harness.fetch("SELECT * FROM dead_letter") == []


async def test_r22_a_time_ahead_of_the_broker_is_a_dead_letter(harness: Harness) -> None:
    broker = datetime(2026, 3, 1, 12, tzinfo=UTC)
    at_limit, beyond = broker + timedelta(minutes=5), broker + timedelta(minutes=5, milliseconds=1)
    await harness.feed(MESSAGING_EVENTS, reply("a", at=at_limit), reply("b", at=beyond), timestamp=broker)
    assert handler_of(harness).seen == ["a"]
    assert [d.reason for d in harness.dead] == ["CLOCK_SKEW"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "INVALID_JSON"),
        (b"\xff\xfe", "INVALID_JSON"),
        (b"{", "INVALID_JSON"),
        (b"[]", "INVALID_EVENT"),
        (b"x" * 300 * 1024, "TOO_LARGE"),
        (b'{"a": 1e999999}', "INVALID_EVENT"),
    ],
)
async def test_bad_bytes_are_dead_letters_with_their_original_bytes(
    harness: Harness, value: bytes | None, reason: str
) -> None:
    await harness.feed_raw(MESSAGING_EVENTS, [(b"k", value)])
    assert [(d.reason, d.record.value) for d in harness.dead] == [(reason, value)]
    rows = await harness.fetch("SELECT keys, payloads FROM outbox")
    assert [(row["keys"], row["payloads"]) for row in rows] == [([b"k"], [value])]
    await harness.feed(MESSAGING_EVENTS, reply("after"))
    assert handler_of(harness).seen == ["after"]


# Parking


async def test_r21_a_parked_record_is_orphaned_when_its_time_is_over(harness: Harness) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    waiting = reply("a", "wait", at=at)
    await harness.feed(MESSAGING_EVENTS, waiting, timestamp=at)
    await harness.expire(at + timedelta(hours=24) - timedelta(milliseconds=1))
    assert len(await harness.fetch("SELECT * FROM parked")) == 1
    await harness.expire(at + timedelta(hours=24))
    assert await harness.fetch("SELECT * FROM parked") == []
    assert await harness.dead_reasons() == ["ORPHANED"]
    assert await harness.fetch("SELECT * FROM inbox") == []


async def test_r21_all_that_is_due_expires_in_bounded_steps(harness: Harness) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    waiting = [
        reply(f"e{number}", "wait", thread_id=f"t{number}") for number in range(parking._EXPIRED_AT_ONCE_MAX + 5)
    ]
    await harness.feed(MESSAGING_EVENTS, *waiting, timestamp=at)
    for left in (5, 0):
        await harness.expire(at + timedelta(hours=25))
        assert len(await harness.fetch("SELECT FROM parked")) == left
    assert await harness.dead_reasons() == ["ORPHANED"] * len(waiting)


async def test_ids_are_forgotten_in_bounded_steps_until_none_is_left(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "_PURGE_ROWS_MAX", 2)
    await harness.feed(MESSAGING_EVENTS, *(reply(f"e{number}") for number in range(3)))
    assert not await harness.processor.forget_expired()
    await harness.fetch("UPDATE inbox SET expires_on = '2026-01-01' WHERE expires_on IS NOT NULL")
    assert [await harness.processor.forget_expired() for _ in range(2)] == [True, False]
    assert await harness.fetch("SELECT FROM inbox WHERE expires_on IS NOT NULL") == []
    assert len(await harness.fetch("SELECT FROM inbox")) == 3, "what a reply is known by is never forgotten"


async def test_the_next_expiry_is_read_off_the_index_however_much_is_parked(harness: Harness) -> None:
    await harness.fetch("""
        INSERT INTO parked (topic, partition, "offset", wait_key, record_timestamp, expires_at, redriven,
                            value, headers)
        SELECT 't', partition, n, 'k', now(), timestamptz '2026-01-01' + n * interval '1 s', false, '', ''
        FROM generate_series(0, 2) AS partition, generate_series(1, 1000) AS n
    """)
    async with acquire(harness.resources.pool) as connection:
        found = await parking.next_expiries(connection, [("t", 0), ("t", 2), ("t", 3)])
        assert found == dict.fromkeys([("t", 0), ("t", 2)], datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC))
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {parking._NEXT}", ["t"] * 2, [0, 2])
    (scan,) = [node for node in nodes(orjson.loads(plan)[0]["Plan"]) if node.get("Relation Name") == "parked"]
    assert (scan["Index Name"], scan["Actual Loops"], scan["Actual Rows"]) == ("parked_expiry", 2, 1)


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


async def test_r21_the_partitions_own_clock_expires_too(harness: Harness) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    await harness.feed(MESSAGING_EVENTS, reply("a", "wait", at=at), timestamp=at)
    later = at + timedelta(hours=25)
    await harness.feed(MESSAGING_EVENTS, reply("b", at=at, thread_id="another"), timestamp=later)
    assert [d.reason for d in harness.dead] == ["ORPHANED"]


async def test_r21_what_expires_in_a_transaction_that_rolls_back_expires_in_the_next(harness: Harness) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    await harness.feed(MESSAGING_EVENTS, reply("a", "wait", at=at), timestamp=at)
    cut = [reply("b", at=at, thread_id="another"), reply("b", "changed", at=at, thread_id="another")]
    await harness.feed(MESSAGING_EVENTS, *cut, timestamp=at + timedelta(hours=25))
    assert sorted(d.reason for d in harness.dead) == ["ID_CONFLICT", "ORPHANED"]


async def test_r21_an_orphan_is_a_dead_letter_although_a_spoilt_copy_of_it_is_one(harness: Harness) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    waiting = reply("a", "wait", at=at)
    await harness.feed(MESSAGING_EVENTS, waiting, timestamp=at)
    await harness.feed_raw(MESSAGING_EVENTS, [(b"another-thread", encode(waiting))], timestamp=at)
    await harness.expire(at + timedelta(hours=25))
    assert await harness.dead_reasons() == ["ORPHANED"]
    assert sum(map(len, [row["keys"] for row in await harness.fetch("SELECT keys FROM outbox")])) == 2


async def test_parked_records_of_a_partition_keep_their_order_though_the_brokers_clock_steps_back(
    harness: Harness,
) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for event_id, minutes in (("a", 5), ("b", 0), ("c", 9)):
        await harness.feed(MESSAGING_EVENTS, reply(event_id, "wait", at=at), timestamp=at + timedelta(minutes=minutes))
    async with acquire(harness.resources.pool) as connection:
        ((_, parked),) = (await load_parked(connection, ["thread-1"])).items()
    assert [incoming.event.id for incoming in parked] == ["a", "b", "c"]


async def test_a_released_record_is_no_longer_parked(harness: Harness) -> None:
    waiting, freeing = reply("a", "wait", thread_id="t"), reply("b", thread_id="t")
    await harness.feed(MESSAGING_EVENTS, waiting)
    await harness.feed(MESSAGING_EVENTS, freeing)
    assert await harness.fetch("SELECT * FROM parked") == []


async def test_a_record_is_counted_when_it_begins_to_wait_and_when_it_waits_no_longer(harness: Harness) -> None:
    waiting = [reply(name, "wait", thread_id="t") for name in ("a", "b")]
    await harness.feed(MESSAGING_EVENTS, *waiting, reply("c", thread_id="another"))
    assert Counter(result for *_, result in harness.results) == {"parked": 2, "accepted": 1}
    harness.results.clear()
    await harness.feed(MESSAGING_EVENTS, reply("d", thread_id="t"))
    assert Counter(result for *_, result in harness.results) == {"accepted": 3}
    await harness.feed(MESSAGING_EVENTS, reply("e", "wait", thread_id="u"))
    harness.results.clear()
    await harness.feed(MESSAGING_EVENTS, reply("f", "repeat", thread_id="u"))
    assert Counter(result for *_, result in harness.results) == {"accepted": 1, "duplicate": 1}


async def test_r21_what_can_no_longer_be_read_blames_nobody_and_ends_as_a_dead_letter(harness: Harness) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    await harness.feed(MESSAGING_EVENTS, reply("a", "wait", at=at), timestamp=at)
    await harness.fetch("""UPDATE parked SET value = replace(encode(value, 'escape'), '"wait"', '7')::bytea""")
    await harness.feed(MESSAGING_EVENTS, reply("b", at=at), timestamp=at)
    assert (handler_of(harness).seen, harness.dead) == (["b"], [])
    await harness.expire(at + timedelta(hours=25))
    assert await harness.dead_reasons() == ["INVALID_EVENT"]
    assert await harness.fetch("SELECT FROM parked") == []

    harness.results.clear()
    cured, redriven = reply("a", "wait", at=at), (*STRUCTURED_HEADERS, (REDRIVE_HEADER, b"1"))
    await harness.feed_raw(MESSAGING_EVENTS, [(cured.subject.encode(), encode(cured))], timestamp=at, headers=redriven)
    assert [result for *_, result in harness.results] == ["parked"], "it was taken before, but had no effect"


def replace_claim(held: Claim) -> Claim:
    return replace(held)
