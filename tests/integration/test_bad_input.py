"""Whatever a broken or hostile publisher sends: one dead letter with its reason and bytes, and the work goes on."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.record.default_records import (
    DefaultRecordBatch,
    _DefaultRecordBatchBuilderPy,
    _DefaultRecordBatchPy,
)
from aiokafka.structs import ConsumerRecord

from services.credits.service import SPEC as CREDITS
from services.ingestion.service import SPEC as INGESTION
from shared.events import STRUCTURED_HEADERS, Event, encode
from shared.health import Health
from shared.metrics import Metrics
from shared.settings import Settings
from shared.stream.service import ServiceProcess, ServiceSpec
from shared.testing import builders
from shared.testing.databases import Databases, as_service
from shared.testing.harness import Harness
from shared.testing.topics import read
from shared.topics import CONTRACT_EVENTS, CONVERSATION_EVENTS, CREDIT_EVENTS, MESSAGING_EVENTS, dead_letters

ID = "to be replaced"
BRACKETS = 100_000
READ_SECONDS_MAX = 60.0
POLL_MS = 100
# Where what a good record does is to be read, and how many events that is.
RESULTS = {MESSAGING_EVENTS: (CONVERSATION_EVENTS, 2), CONTRACT_EVENTS: (CREDIT_EVENTS, 1)}
DLQ_HEADERS = {"dlq-reason", "dlq-detail", "dlq-topic", "dlq-partition", "dlq-offset", "dlq-first-seen"}
TOO_LARGE_BYTES = 300 * 1024
MIB = 1024 * 1024


@dataclass(frozen=True)
class Case:
    """A service, and a valid event that it reads, of which a text and a number are spoilt."""

    spec: ServiceSpec
    topic: str
    event: Event[Any]
    text: bytes
    number: bytes
    good: Callable[[str], Event[Any]]

    def __str__(self) -> str:
        return self.spec.name

    @property
    def key(self) -> bytes:
        return self.event.subject.encode()

    @property
    def value(self) -> bytes:
        return encode(self.event)

    @property
    def number_name(self) -> str:
        return self.number.decode().split('"')[1]

    def with_text(self, text: bytes) -> bytes:
        return changed(self.value, b'"%b"' % self.text, b'"%b"' % text)

    def with_number(self, number: bytes) -> bytes:
        return changed(self.value, self.number, b'"%b":%b' % (self.number_name.encode(), number))


def changed(value: bytes, old: bytes, new: bytes) -> bytes:
    assert value.count(old) == 1, old
    return value.replace(old, new)


SENT = Case(
    INGESTION,
    MESSAGING_EVENTS,
    builders.sent(inmail_id="bad", id=ID),
    text=b"Ada",
    number=b'"credit_cost":1',
    good=lambda name: builders.sent(inmail_id=name, thread_id=name),
)
STARTED = Case(
    CREDITS,
    CONTRACT_EVENTS,
    builders.contract_started(contract_id="bad", id=ID),
    text=b"Contoso",
    number=b'"monthly_allotment":10',
    good=lambda name: builders.contract_started(contract_id=name),
)
CASES = [SENT, STARTED]
each_case = pytest.mark.parametrize("case", CASES, ids=str)

Record = tuple[bytes | None, bytes | None]


def bad(case: Case) -> Iterator[tuple[str, str, Record]]:
    """Name, reason, and key and value of each bad record."""
    key, value = case.key, case.value
    document = json.loads(value)

    def but(**changes: Any) -> bytes:
        return json.dumps({n: v for n, v in {**document, **changes}.items() if v is not ...}).encode()

    def with_data(**changes: Any) -> bytes:
        return but(data={n: v for n, v in {**document["data"], **changes}.items() if v is not ...})

    name = case.number_name
    same_key = {
        "null": ("INVALID_JSON", None),
        "nothing": ("INVALID_JSON", b""),
        "no JSON": ("INVALID_JSON", b"{not json"),
        "cut off": ("INVALID_JSON", value[:-1]),
        "two documents": ("INVALID_JSON", value * 2),
        "NaN": ("INVALID_JSON", case.with_number(b"NaN")),
        "no UTF-8": ("INVALID_JSON", case.with_text(b"\xff\xfe")),
        "a raw surrogate": ("INVALID_JSON", case.with_text(b"\xed\xa0\x80")),
        "UTF-16": ("INVALID_JSON", value.decode().encode("utf-16")),
        "deep": ("INVALID_JSON", b"[" * BRACKETS + b"]" * BRACKETS),
        "deep and open": ("INVALID_JSON", b"[" * BRACKETS),
        "deep within": ("INVALID_JSON", changed(value, b'"data":{', b'"x":%b,"data":{' % (b"[" * 300 + b"]" * 300))),
        "a list": ("INVALID_EVENT", b"[%b]" % value),
        "a text": ("INVALID_EVENT", b'"hello"'),
        "null in JSON": ("INVALID_EVENT", b"null"),
        "an escaped NUL": ("INVALID_EVENT", case.with_text(b"A\\u0000a")),
        "a raw NUL": ("INVALID_JSON", case.with_text(b"A\0a")),
        "a lone surrogate": ("INVALID_EVENT", case.with_text(b"A\\ud83d")),
        "a surrogate in a name": ("INVALID_EVENT", changed(value, b'"data":{', b'"data":{"\\udc00":1,')),
        "no id": ("INVALID_EVENT", but(id=...)),
        "an empty id": ("INVALID_EVENT", but(id="")),
        "a long id": ("INVALID_EVENT", but(id="x" * 129)),
        "another version": ("INVALID_EVENT", but(specversion="0.3")),
        "no type": ("INVALID_EVENT", but(type=...)),
        "no data": ("INVALID_EVENT", but(data=...)),
        "data as a text": ("INVALID_EVENT", but(data=json.dumps(document["data"]))),
        "another time": ("INVALID_EVENT", but(time="2026-01-05T09:00:00.001Z")),
        "a field missing": ("INVALID_EVENT", with_data(**{name: ...})),
        "a number as text": ("INVALID_EVENT", with_data(**{name: "1"})),
        "a number with a point": ("INVALID_EVENT", with_data(**{name: 1.5})),
        "true for a number": ("INVALID_EVENT", with_data(**{name: True})),
        "null for a number": ("INVALID_EVENT", with_data(**{name: None})),
        "1e400": ("INVALID_EVENT", case.with_number(b"1e400")),
        "2**70": ("INVALID_EVENT", case.with_number(b"%d" % 2**70)),
        "10**5000": ("INVALID_EVENT", case.with_number(b"1" + b"0" * 5000)),
        "a field twice, the last one wrong": ("INVALID_EVENT", case.with_number(b'1,"%b":"1"' % name.encode())),
        "an unknown type": ("UNKNOWN_TYPE", but(type="reply.sung.v1")),
        "a type of another topic": ("UNKNOWN_TYPE", but(type="outcome.decided.v1")),
        "300 KiB": ("TOO_LARGE", case.with_text(b"x" * TOO_LARGE_BYTES)),
        "300 KiB of nothing": ("TOO_LARGE", b"\0" * TOO_LARGE_BYTES),
    }
    for what, (reason, spoilt) in same_key.items():
        yield what, reason, (key, with_own_id(spoilt, what))
    keys = {
        "no key": None,
        "an empty key": b"",
        "another key": b"another",
        "a key that is no text": b"\xff",
        "a NUL in the key": key + b"\0",
    }
    for what, other in keys.items():
        yield what, "INVALID_EVENT", (other, with_own_id(value, what))


def with_own_id(value: bytes | None, what: str) -> bytes | None:
    """The same content under the same id would be a repeat of one dead letter."""
    return value and value.replace(f'"{ID}"'.encode(), json.dumps(f"bad: {what}").encode())


EACH = [pytest.param(case, *record, id=f"{case}: {record[0]}") for case in CASES for record in bad(case)]


@pytest.fixture(scope="module")
async def harnesses(databases: Databases) -> AsyncIterator[dict[str, Harness]]:
    dsn = await databases.create()
    opened = {case.spec.name: await Harness.open(case.spec, as_service(dsn, case.spec.name)) for case in CASES}
    yield opened
    for harness in opened.values():
        await harness.close()
    await databases.drop(dsn)


@pytest.mark.parametrize(("case", "what", "reason", "record"), EACH)
async def test_a_bad_record_is_a_dead_letter_and_the_good_one_behind_it_counts(
    harnesses: dict[str, Harness], case: Case, what: str, reason: str, record: Record
) -> None:
    harness, good = harnesses[case.spec.name], case.good(f"behind {what}")
    before = len(harness.dead)
    emitted = await harness.feed_raw(case.topic, [record, (good.subject.encode(), encode(good))])
    (dead,) = harness.dead[before:]
    assert (dead.reason, dead.record.key, dead.record.value) == (reason, *record)
    assert {e.causeid for e in emitted} == {good.id}
    stored = await harness.fetch("SELECT keys, payloads FROM outbox ORDER BY outbox_id DESC LIMIT 3")
    assert ([record[0]], [record[1]]) in [(row["keys"], row["payloads"]) for row in stored]


@each_case
async def test_a_field_that_comes_twice_has_its_last_value(harnesses: dict[str, Harness], case: Case) -> None:
    """JSON leaves it open; both ways through the decoder must answer alike, or a repeat would be a conflict."""
    harness = harnesses[case.spec.name]
    good = case.good("twice")
    name = case.number_name.encode()
    value = changed(encode(good), case.number, b'"%b":0,%b' % (name, case.number))
    suspicious = changed(value, b'"data":', b'"unheard":"NaN","data":')  # takes the slow way
    before = len(harness.dead)
    emitted = await harness.feed_raw(case.topic, [(good.subject.encode(), value), (good.subject.encode(), suspicious)])
    assert harness.dead[before:] == []
    assert {e.causeid for e in emitted} == {good.id}
    given = [getattr(e.data, "credit_cost", None) or getattr(e.data, "amount", None) for e in emitted]
    assert int(case.number.split(b":")[1]) in given


@each_case
async def test_on_the_broker_everything_bad_arrives_once_and_the_process_goes_on(
    broker: str, database: str, case: Case
) -> None:
    settings = Settings(kafka_bootstrap=broker, postgres_dsn=as_service(database, case.spec.name))
    process = ServiceProcess(case.spec, settings, Metrics(case.spec.name), Health(settings.progress_seconds_max))
    working = asyncio.create_task(process.run())
    records = [record for _, _, record in bad(case)]
    good = [case.good(f"good {number}") for number in range(len(records))]
    async with AIOKafkaProducer(bootstrap_servers=broker, compression_type="gzip") as producer:
        for (key, value), event in zip(records, good, strict=True):
            await producer.send(case.topic, key=key, value=value)
            await producer.send(case.topic, key=event.subject.encode(), value=encode(event))
        await producer.flush()
    letters = await read_raw(broker, dead_letters(case.spec.name), count=len(records))
    topic, events_each = RESULTS[case.topic]
    done = await read(broker, topic, count=events_each * len(good))
    assert not working.done()
    process.stop()
    await working
    found = sorted((dict(r.headers)["dlq-reason"].decode(), r.key or b"", r.value or b"") for r in letters)
    assert found == sorted((reason, key or b"", value or b"") for _, reason, (key, value) in bad(case))
    assert {name for r in letters for name, _ in r.headers} == DLQ_HEADERS
    assert {e.causeid for e in done} == {event.id for event in good}


async def test_what_grows_beyond_its_topics_limit_when_read_is_kept_or_named_and_nothing_is_stuck(
    broker: str, database: str
) -> None:
    settings = Settings(kafka_bootstrap=broker, postgres_dsn=as_service(database, INGESTION.name))
    process = ServiceProcess(INGESTION, settings, Metrics(INGESTION.name), Health(settings.progress_seconds_max))
    working = asyncio.create_task(process.run())
    good = SENT.good("behind the large ones")
    kept, left = b"x" * 3 * MIB, b"y" * 6 * MIB
    async with AIOKafkaProducer(
        bootstrap_servers=broker, compression_type="gzip", max_request_size=8 * MIB, max_batch_size=MIB
    ) as producer:
        for value in (kept, left, encode(good)):
            await producer.send_and_wait(MESSAGING_EVENTS, key=good.subject.encode(), value=value)
    letters = await read_raw(broker, dead_letters(INGESTION.name), count=2)
    done = await read(broker, CONVERSATION_EVENTS, count=2)
    assert not working.done()
    process.stop()
    await working
    assert {e.causeid for e in done} == {good.id}
    assert [(r.value, dict(r.headers)["dlq-reason"]) for r in letters] == [(kept, b"TOO_LARGE"), (None, b"TOO_LARGE")]
    assert int(dict(letters[1].headers)["dlq-left-out-bytes"]) > len(left)
    assert "dlq-offset" in dict(letters[1].headers)


@pytest.mark.parametrize("codec", [0, 1], ids=["plain", "gzip"])
@pytest.mark.parametrize("parser", [DefaultRecordBatch, _DefaultRecordBatchPy])
async def test_a_header_whose_name_is_no_text_stops_nothing(
    broker: str, database: str, monkeypatch: pytest.MonkeyPatch, parser: type, codec: int
) -> None:
    monkeypatch.setattr("aiokafka.record.memory_records.DefaultRecordBatch", parser)
    settings = Settings(kafka_bootstrap=broker, postgres_dsn=as_service(database, INGESTION.name))
    process = ServiceProcess(INGESTION, settings, Metrics(INGESTION.name), Health(settings.progress_seconds_max))
    working = asyncio.create_task(process.run())
    good, spoilt = ([SENT.good(f"{what} {number}") for number in range(3)] for what in ("good", "spoilt"))
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        batch = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, -1, MIB)
        for event in (good[0], spoilt[0], spoilt[1], good[1], spoilt[2], good[2]):
            name = Spoilt("spoilt") if event in spoilt else "good"
            headers = [*STRUCTURED_HEADERS, (name, b"\xff"), ("none", None)]
            batch.append(timestamp=None, key=event.subject.encode(), value=encode(event), headers=headers)
        await (await producer.send_batch(batch, MESSAGING_EVENTS, partition=0))
    letters = await read_raw(broker, dead_letters(INGESTION.name), count=3)
    done = await read(broker, CONVERSATION_EVENTS, count=6)
    assert not working.done()
    process.stop()
    await working
    assert {e.causeid for e in done} == {event.id for event in good}
    assert [(r.key, r.value) for r in letters] == [(event.subject.encode(), encode(event)) for event in spoilt]
    for letter in letters:
        assert letter.headers[1:3] == ((r"sp\xfflt", b"\xff"), ("none", None))
        assert dict(letter.headers)["dlq-reason"] == b"INVALID_EVENT"
        assert dict(letter.headers)["dlq-detail"] == b"headers: a name is no UTF-8"


class Spoilt(str):
    """A header's name of bytes that Kafka takes and aiokafka would not write."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"sp\xfflt"


async def read_raw(bootstrap: str, topic: str, *, count: int) -> list[ConsumerRecord]:
    """Read records of a topic from its first one."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", group_id=None)
    await consumer.start()
    found: list[ConsumerRecord] = []
    try:
        async with asyncio.timeout(READ_SECONDS_MAX):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                    found += records
        return found
    finally:
        await consumer.stop()
