"""Ingestion on a real Postgres: what it keeps between batches is all it needs, and it keeps names in one place."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from services.ingestion.service import SPEC
from shared.events import Candidate, Event, encode
from shared.stream.dry_run import dry_run_route
from shared.stream.records import Position, RawRecord
from shared.templates import render
from shared.testing.builders import (
    ADA,
    after,
    drafted,
    followed,
    reassigned,
    recruiter_message,
    reply,
    scheduled,
    sent,
    undelivered,
    unfollowed,
    withdrawn,
)
from shared.testing.databases import Databases, as_service
from shared.testing.harness import Harness
from shared.topics import ACCOUNTING_FACTS, CLASSIFICATION_REQUESTS, CONVERSATION_EVENTS, MESSAGING_EVENTS

NOW = after(days=120)  # the broker's clock: later than everything that happens here
DAY = timedelta(days=1)


@pytest.fixture
async def ingestion(database: str) -> AsyncIterator[Harness]:
    harness = await Harness.open(SPEC, as_service(database, "ingestion"))
    yield harness
    await harness.close()


def told(events: list[Event[Any]]) -> list[str]:
    return [event.type.removesuffix(".v1") for event in events]


async def feed(ingestion: Harness, *events: Event[Any], batch_records: int | None = None) -> list[str]:
    return told(await ingestion.feed(MESSAGING_EVENTS, *events, batch_records=batch_records, timestamp=NOW))


async def test_a_message_is_recorded_accounted_for_and_sent_to_be_classified(ingestion: Harness) -> None:
    await feed(ingestion, sent(), reply(text="Tell me more"))
    assert told(ingestion.on(CONVERSATION_EVENTS)) == [
        "inmail.status_changed",
        "thread.audience_changed",
        "reply.recorded",
    ]
    assert told(ingestion.on(ACCOUNTING_FACTS)) == ["inmail.status_changed", "reply.recorded"]
    assert {event.subject for event in ingestion.on(ACCOUNTING_FACTS)} == {"contract-1"}
    (request,) = ingestion.on(CLASSIFICATION_REQUESTS)
    assert (request.subject, request.data.text, request.data.thread_version) == ("thread-1", "Tell me more", 3)
    same = {event.id for event in ingestion.on(CONVERSATION_EVENTS)} & {e.id for e in ingestion.on(ACCOUNTING_FACTS)}
    assert len(same) == 2
    assert {event.rootid for _, event in ingestion.emitted} == {sent().id, reply(text="Tell me more").id}
    assert not ingestion.dead


async def test_r09_an_away_message_reaches_neither_credits_nor_classification(ingestion: Harness) -> None:
    await feed(ingestion, sent())
    assert await feed(ingestion, reply(automated=True)) == ["reply.recorded"]
    assert told(ingestion.on(CONVERSATION_EVENTS))[-1] == "reply.recorded"


async def test_r10_an_empty_response_is_a_dead_letter_and_leaves_no_trace(ingestion: Harness) -> None:
    assert await feed(ingestion, sent(), reply(text=" ... ")) == [
        "inmail.status_changed",
        "inmail.status_changed",
        "thread.audience_changed",
    ]
    assert [dead.reason for dead in ingestion.dead] == ["EMPTY_RESPONSE"]
    assert not await ingestion.fetch("SELECT FROM reply")


async def test_r11_a_repeat_has_no_effect(ingestion: Harness) -> None:
    events = (sent(), reply(text="Hi"), recruiter_message())
    await feed(ingestion, *events, *events)
    assert await feed(ingestion, *events) == []


@pytest.mark.parametrize("batch_records", [1, 2, 10])
async def test_r21_parked_records_are_decided_in_order_when_their_inmail_comes(
    ingestion: Harness, batch_records: int
) -> None:
    early = (
        withdrawn(at=after(hours=3)),
        reply(text="Hi", at=after(hours=2)),
        reply(reply_id="reply-2", text="Hello", at=after(hours=1)),
        followed(at=after(hours=1)),
    )
    assert await feed(ingestion, *early, batch_records=batch_records) == []
    assert len(await ingestion.fetch("SELECT FROM parked")) == 3
    await feed(ingestion, scheduled(), sent(), recruiter_message(), batch_records=batch_records)
    assert [
        (event.type, event.data.model_dump().get("status") or event.data.model_dump().get("reply_id"))
        for event in ingestion.on(CONVERSATION_EVENTS)
    ] == [
        ("inmail.status_changed.v1", "scheduled"),
        ("thread.audience_changed.v1", None),
        ("inmail.status_changed.v1", "withdrawn"),
        ("inmail.status_changed.v1", "sent"),
        ("reply.recorded.v1", "reply-1"),
        ("reply.recorded.v1", "reply-2"),
        ("recruiter_message.accepted.v1", None),
    ]
    assert not await ingestion.fetch("SELECT FROM parked")


async def test_r21_what_waits_in_vain_becomes_an_orphan(ingestion: Harness) -> None:
    await feed(ingestion, reply(text="Hi"), undelivered(inmail_id="inmail-9"))
    await ingestion.expire(NOW + DAY)
    assert await ingestion.dead_reasons() == ["ORPHANED", "ORPHANED"]
    assert await feed(ingestion, sent()) == [
        "inmail.status_changed",
        "inmail.status_changed",
        "thread.audience_changed",
    ]


async def test_r22_a_reply_before_every_inmail_of_its_thread_waits_for_another(ingestion: Harness) -> None:
    answer = reply(text="Hi", at=after(days=1) - timedelta(minutes=6))
    assert "reply.recorded" not in await feed(ingestion, sent(at=after(days=1)), answer)
    assert "reply.recorded" in await feed(ingestion, sent(inmail_id="inmail-2", at=after(hours=1)))
    assert ingestion.on(CLASSIFICATION_REQUESTS)[-1].data.inmail_id == "inmail-2"


def traffic(random: Random) -> list[Event[Any]]:
    """Random talk in a few threads, out of order; ids differ by case, to catch an order of another alphabet."""
    events: list[Event[Any]] = []
    for number in range(12):
        thread_id = f"thread-{number}"
        for inmail in range(random.randint(1, 3)):
            name = random.choice((None, "Ada", "Äda \U0001f600"))
            about: dict[str, Any] = {
                "thread_id": thread_id,
                "inmail_id": f"inmail-{number}-{inmail}",
                "kind": "follow_up" if inmail else "initial",
                "seat_id": f"seat-{random.randint(1, 3)}",
                "candidate": Candidate(id="candidate-1", name=name),
            }
            if random.random() < 0.6 or inmail:
                events.append(scheduled(**about, at=after(hours=random.randint(0, 9))))
            if random.random() < 0.6 or not inmail:
                events.append(sent(**about, at=after(hours=random.randint(0, 9))))
            if random.random() < 0.3:
                end = random.choice((undelivered, withdrawn))
                events.append(end(thread_id=thread_id, inmail_id=about["inmail_id"], at=after(hours=9)))
        for said in range(random.randint(0, 3)):
            template, text = render("not_interested", "en", random.choice((None, "Ada", "Äda \U0001f600", "Eve")))
            events.append(
                reply(
                    thread_id=thread_id,
                    reply_id=f"{random.choice('aBcD')}-{number}-{said}",
                    choice=random.choice((None, "interested", "not_interested", "not_interested")),
                    template=template,
                    text=random.choice((text, text, "own words")),
                    at=after(hours=random.randint(8, 12)),
                )
            )
        for _ in range(random.randint(0, 5)):
            at = after(hours=random.randint(0, 12))
            events.append(
                random.choice(
                    (
                        drafted(thread_id=thread_id, choice=random.choice((None, "interested")), at=at),
                        followed(thread_id=thread_id, seat_id=f"seat-{random.randint(1, 4)}", at=at),
                        unfollowed(thread_id=thread_id, seat_id=f"seat-{random.randint(1, 4)}", at=at),
                        reassigned(thread_id=thread_id, seat_id=f"seat-{random.randint(1, 4)}", at=at),
                        recruiter_message(thread_id=thread_id, message_id=f"message-{len(events)}", at=at),
                    )
                )
            )
    random.shuffle(events)
    return events


@pytest.mark.parametrize("seed", range(3))
async def test_batches_of_any_size_publish_the_same(databases: Databases, seed: int) -> None:
    """What is loaded from the tables is what was in memory, and nothing depends on where a batch ends."""
    events = traffic(Random(seed))  # noqa: S311  reproducible traffic, not a secret
    published = []
    for batch_records in (None, 1, 7):
        dsn = await databases.create()
        harness = await Harness.open(SPEC, as_service(dsn, "ingestion"))
        await harness.feed(MESSAGING_EVENTS, *events, batch_records=batch_records, timestamp=NOW)
        published.append([(topic, encode(event)) for topic, event in harness.emitted])
        await harness.close()
        await databases.drop(dsn)
    assert len(published[0]) > len(events)
    assert published[1] == published[0]
    assert published[2] == published[0]


async def test_an_effect_larger_than_its_readers_take_ends_its_record_alone(ingestion: Harness) -> None:
    """In the outbox the broker would refuse it for ever, and all that stands behind it would wait."""
    await feed(ingestion, sent())
    await ingestion.fetch(
        "INSERT INTO following SELECT 'thread-1', md5(n::text), $1, true FROM generate_series(1, 30000) n", after()
    )
    around = reply(text="Tell me more"), recruiter_message(at=after(days=1))
    too_large = followed(at=after(hours=2))
    emitted = await ingestion.feed(MESSAGING_EVENTS, around[0], too_large, around[1], timestamp=NOW)
    assert {e.causeid for e in emitted} == {e.id for e in around}
    assert [(d.reason, d.record.value) for d in ingestion.dead] == [("PROCESSING_FAILED", encode(too_large))]
    assert "EffectTooLargeError" in ingestion.dead[0].detail
    assert await ingestion.fetch("SELECT FROM following WHERE seat_id = $1", too_large.data.seat_id) == []
    assert ingestion.claims[MESSAGING_EVENTS, 0].next_offset == 4


async def test_names_and_words_are_kept_in_one_table(ingestion: Harness) -> None:
    await feed(ingestion, scheduled(candidate=ADA.model_copy(update={"name": "Zebedee"})))
    await feed(ingestion, sent(), reply(choice="not_interested", text="Zebedee wrote these words"))
    template, text = render("not_interested", "en", "Zebedee Junior")
    await feed(ingestion, reply(reply_id="reply-2", choice="not_interested", template=template, text=text))
    tables = await ingestion.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'ingestion'")
    holding = set()
    for (table,) in tables:
        rows = await ingestion.fetch(f'SELECT t::text AS line FROM "{table}" t')  # noqa: S608  the catalogue's names
        if any("Zebedee" in row["line"] for row in rows):
            holding.add(table)
    assert holding == {"private_text"}
    kinds = await ingestion.fetch("SELECT kind, content FROM private_text ORDER BY kind")
    assert [row["kind"] for row in kinds] == ["scheduled_name", "sent_name", "unmatched_digest"]
    assert "Junior" not in kinds[-1]["content"]


async def test_unknown_templates_are_counted(ingestion: Harness) -> None:
    template, text = render("interested", "en", None)
    unknown = template.model_copy(update={"version": 99})
    await feed(ingestion, sent())
    answer = reply(choice="interested", template=unknown, text=text)
    record = RawRecord(Position(MESSAGING_EVENTS, 0, 1), datetime.now(UTC), answer.subject.encode(), encode(answer), ())
    await ingestion.processor.dry_run([record])  # counts nothing
    await feed(ingestion, answer)
    assert ingestion.resources.metrics.registry.get_sample_value("inmail_unknown_templates_total") == 1


async def test_plans_go_by_keys_before_a_table_was_ever_analysed(ingestion: Harness) -> None:
    wanted = [f"thread-{number}" for number in range(1_000)]
    rows = await ingestion.fetch(f"EXPLAIN SELECT * FROM reply WHERE thread_id = ANY(ARRAY{wanted})")  # noqa: S608  names made here
    plan = "\n".join(row[0] for row in rows)
    assert "Index" in plan
    assert "Seq Scan" not in plan


async def test_what_waits_for_a_later_record_of_its_batch_is_counted_as_accepted(ingestion: Harness) -> None:
    await feed(ingestion, reply(choice="not_interested"), sent())
    assert Counter(result for *_, result in ingestion.results) == {"accepted": 2}


async def test_a_dry_run_tells_what_a_record_sets_free(ingestion: Harness) -> None:
    answer = reply(choice="not_interested")
    await feed(ingestion, answer)
    app = Starlette(routes=[dry_run_route(lambda: ingestion.processor, ingestion.resources.bulkhead)])
    record = {"topic": MESSAGING_EVENTS, "key": answer.subject, "value": encode(sent()).decode()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        (tried,) = (await client.post("/internal/dry-run", json={"records": [record]})).json()["results"]
        bad = await client.post("/internal/dry-run", json={})
        unread = await client.post("/internal/dry-run", json={"records": [record | {"topic": "inmail.unknown"}]})
    types = [emitted["event"]["type"] for emitted in tried["emitted"]]
    assert {"inmail.status_changed.v1", "classification.requested.v1", "thread.locked.v1"} <= set(types)
    assert (bad.status_code, bad.headers["content-type"]) == (422, "application/problem+json")
    assert (unread.status_code, MESSAGING_EVENTS in unread.json()["cure"]) == (422, True)
